"""Orders: what shops and payment providers export is read as it is meant, or named line by line."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from capi_middleware.cli.orders import Orders, Written, numbers_in, read_orders

#: orders_export.csv of Shopify: the items of an order follow it in lines of their own.
SHOPIFY = """\
Name,Email,Financial Status,Paid at,Fulfillment Status,Accepts Marketing,Currency,Subtotal,Total,\
Created at,Lineitem quantity,Lineitem name,Billing Phone,Cancelled at,Payment Method,\
Refunded Amount,Id,Source,Phone
#1001,a@example.com,paid,2026-11-20 14:03:22 +0100,fulfilled,no,EUR,40.00,45.90,\
2026-11-20 14:03:20 +0100,1,Kettle,'+49301,,Shopify Payments,0.00,5501,web,
#1001,a@example.com,,,,,,,,2026-11-20 14:03:20 +0100,2,Cup,,,,,,,
#1002,b@example.com,pending,,unfulfilled,no,EUR,5.00,5.00,2026-11-20 15:00:00 +0100,1,Cup,,,,0.00,\
5502,web,
#1002,b@example.com,,,,,,,,2026-11-20 15:00:00 +0100,1,Spoon,,,,,,,
#1003,c@example.com,paid,2026-11-20 16:00:00 +0100,fulfilled,no,EUR,9.00,9.00,\
2026-11-20 16:00:00 +0100,1,Cup,,,Shopify Payments,9.00,5503,web,
#1004,d@example.com,partially_refunded,2026-11-20 17:00:00 +0100,fulfilled,yes,EUR,9.00,9.00,\
2026-11-20 17:00:00 +0100,1,Cup,,,Shopify Payments,4.00,5504,web,
#1005,e@example.com,paid,2026-11-20 18:00:00 +0100,fulfilled,yes,EUR,9.00,9.00,\
2026-11-20 18:00:00 +0100,1,Cup,,2026-11-20 18:30:00 +0100,Shopify Payments,0.00,5505,web,
#1006,f@example.com,voided,,,yes,EUR,9.00,9.00,2026-11-20 18:00:00 +0100,1,Cup,,,,0.00,5506,web,
"""

WOOCOMMERCE = """\
order_id,order_number,order_date,paid_date,status,order_total,order_currency,customer_email,\
billing_email,billing_phone
71,71,11/20/2026  6:29:00,11/20/2026  6:30:00,wc-completed,45.90,EUR,a@example.com,,+49301
72,72,11/20/2026  6:29:00,11/20/2026  6:30:00,processing,5.00,EUR,b@example.com,,
73,73,11/20/2026  6:29:00,,wc-cancelled,5.00,EUR,c@example.com,,
74,74,11/20/2026  6:29:00,,on-hold,5.00,EUR,d@example.com,,
75,75,11/20/2026  6:29:00,11/20/2026  6:30:00,wc-refunded,5.00,EUR,e@example.com,,
"""

STRIPE = """\
id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Decline Reason,\
Description,Fee,Mode,PaymentIntent ID,Status,Seller Message,Customer ID,Customer Email,\
order_id (metadata)
py_1,2026-11-20 13:03,45.90,0.00,eur,true,45.90,,Order A-1,1.2,Live,pi_1,Paid,Payment complete.,\
cus_1,a@example.com,A-1
ch_2,2026-11-20 13:05,5.00,0.00,eur,false,5.00,insufficient_funds,,0,Live,pi_2,Failed,,cus_2,\
b@example.com,A-2
ch_3,2026-11-20 13:06,5.00,0.00,eur,true,5.00,,,0,Live,pi_2,Paid,,cus_2,b@example.com,A-2
ch_4,2026-11-20 13:07,7.00,7.00,eur,true,7.00,,,0,Live,pi_4,Refunded,,cus_4,d@example.com,A-4
ch_5,2026-11-20 13:08,7.00,2.00,eur,true,7.00,,,0,Live,pi_5,Partial Refund,,cus_5,e@example.com,A-5
ch_6,2026-11-20 13:09,7.00,0.00,eur,true,7.00,,,0,Test,pi_6,Paid,,cus_6,f@example.com,A-6
"""

PAYPAL = """\
"Date","Time","TimeZone","Name","Type","Status","Currency","Gross","Fee","Net",\
"From Email Address","To Email Address","Transaction ID","Reference Txn ID","Invoice Number",\
"Custom Number","Contact Phone Number","Balance Impact"
"11/20/2026","05:03:22","PST","Ann","Express Checkout Payment","Completed","USD","1,045.90",\
"-1.20","1,044.70","a@example.com","shop@example.com","9AB1","","INV-1","","","Credit"
"11/20/2026","05:10:00","PST","","General Currency Conversion","Completed","USD","3.00","0.00",\
"3.00","","shop@example.com","9AB2","9AB1","","","","Credit"
"11/20/2026","06:00:00","PST","Bob","Express Checkout Payment","Completed","USD","20.00","-1.00",\
"19.00","b@example.com","shop@example.com","9AB3","","INV-3","","","Credit"
"11/21/2026","06:00:00","PST","Bob","Payment Refund","Completed","USD","-20.00","1.00","-19.00",\
"shop@example.com","b@example.com","9AB4","9AB3","INV-3","","","Debit"
"11/21/2026","07:00:00","PST","","General Withdrawal","Completed","USD","-900.00","0.00",\
"-900.00","shop@example.com","","9AB5","","","","","Debit"
"11/21/2026","08:00:00","PST","Cy","Express Checkout Payment","Pending","USD","20.00","-1.00",\
"19.00","c@example.com","shop@example.com","9AB6","","INV-6","","","Memo"
"""

PADDLE = """\
transaction_id,status,customer_id,customer_email,currency_code,origin,created_at,billed_at,\
subtotal,tax,grand_total,custom_data.order_id
txn_01,completed,ctm_1,a@example.com,EUR,web,2026-11-20T13:03:00.000Z,2026-11-20T13:03:22.000Z,\
38.00,7.90,45.90,A-1
txn_02,past_due,ctm_2,b@example.com,EUR,web,2026-11-20T13:03:00.000Z,,4.00,1.00,5.00,A-2
txn_03,canceled,ctm_3,c@example.com,EUR,web,2026-11-20T13:03:00.000Z,,4.00,1.00,5.00,A-3
"""

EXPORTS = {
    "Shopify": SHOPIFY, "WooCommerce": WOOCOMMERCE, "Stripe": STRIPE, "PayPal": PAYPAL,
    "Paddle": PADDLE,
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "orders.csv"


def read(file: Path, text: str, column: str | None = None, encoding: str = "utf-8") -> Orders:
    file.write_text(text, encoding)
    return read_orders(file, {"id": column or numbers_in(file, None)[0].column})


def moment(*when: int, zone: str = "UTC") -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[arg-type,misc]


def test_shopify_s_orders_are_read_by_their_first_lines(file: Path) -> None:
    found = read(file, SHOPIFY, "Name")
    assert [(one.id, str(one.value), one.currency) for one in found.orders] == [
        ("#1001", "45.90", "EUR"), ("#1004", "9.00", "EUR"),
    ]  # fmt: skip
    assert found.orders[0].time == moment(2026, 11, 20, 13, 3, 22)
    assert (found.orders[0].email, found.orders[0].slack) == ("a@example.com", 0.0)
    assert found.left_out == {"not paid": 1, "cancelled": 2, "refunded": 1}
    assert found.bad_lines == []
    assert {one.id: one.status for one in found.not_paid.values()} == {
        "#1002": "pending", "#1003": "refunded", "#1005": "cancelled", "#1006": "voided",
    }  # fmt: skip


def test_accepting_marketing_mails_is_no_consent_to_be_tracked(file: Path) -> None:
    assert "consent" not in read(file, SHOPIFY, "Name").columns


def test_woocommerce_s_orders_have_american_dates_and_words_of_its_own(file: Path) -> None:
    found = read(file, WOOCOMMERCE)
    assert [one.id for one in found.orders] == ["71", "72"]
    assert found.orders[0].time == moment(2026, 11, 20, 6, 30)
    assert found.orders[0].slack > 0  # of whatever zone
    assert found.left_out == {"cancelled": 1, "not paid": 1, "refunded": 1}


def test_stripe_s_payments_are_orders_by_the_number_that_the_shop_gave(file: Path) -> None:
    found = read(file, STRIPE)
    assert found.columns["id"] == "order_id (metadata)"
    assert [(one.id, str(one.value), one.currency, one.slack) for one in found.orders] == [
        ("A-1", "45.90", "EUR", 0.0), ("A-2", "5.00", "EUR", 0.0), ("A-5", "7.00", "EUR", 0.0),
    ]  # fmt: skip
    assert found.orders[0].time == moment(2026, 11, 20, 13, 3)
    assert found.left_out == {"not paid": 1, "refunded": 1, "test": 1}
    assert set(found.not_paid) == {"A-4"}


def test_paypal_s_list_has_refunds_fees_and_transfers_beside_payments(file: Path) -> None:
    found = read(file, PAYPAL)
    assert found.columns["id"] == "Invoice Number"
    (order,) = found.orders
    assert (order.id, str(order.value), order.currency) == ("INV-1", "1045.90", "USD")
    assert order.time == moment(2026, 11, 20, 5, 3, 22, zone="America/Los_Angeles")
    assert order.email == "a@example.com"
    assert found.left_out == {"no order": 2, "negative": 1, "not paid": 1, "refunded": 1}
    assert {one.id: one.status for one in found.not_paid.values()} == {
        "INV-3": "refunded", "INV-6": "Pending",
    }  # fmt: skip


def test_paddle_s_transactions_are_orders_by_the_app_s_own_data(file: Path) -> None:
    found = read(file, PADDLE)
    assert found.columns["id"] == "custom_data.order_id"
    (order,) = found.orders
    assert (order.id, str(order.value), order.currency) == ("A-1", "45.90", "EUR")
    assert order.time == moment(2026, 11, 20, 13, 3, 22)
    assert found.left_out == {"not paid": 1, "cancelled": 1}


@pytest.mark.parametrize("shop", EXPORTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_excel_s_encodings_and_line_ends_change_nothing(
    file: Path, shop: str, encoding: str
) -> None:
    plain = read(file, EXPORTS[shop])
    saved = read(file, EXPORTS[shop].replace("\n", "\r\n"), encoding=encoding)
    assert saved.orders == plain.orders
    assert saved.left_out == plain.left_out


@pytest.mark.parametrize(
    ("dates", "first"),
    [
        (["20/11/2026", "3/4/2026"], datetime(2026, 4, 3, tzinfo=UTC)),
        (["11/20/2026", "3/4/2026"], datetime(2026, 3, 4, tzinfo=UTC)),
        (["20.11.2026", "3.4.2026"], datetime(2026, 4, 3, tzinfo=UTC)),
    ],
)
def test_other_dates_of_the_file_tell_how_a_date_is_meant(
    file: Path, dates: list[str], first: datetime
) -> None:
    lines = [f"{n},{date},5,EUR" for n, date in enumerate(dates)]
    found = read(file, "order_id,date,total,currency\n" + "\n".join(lines))
    assert found.orders[1].time == first.timestamp()


def test_dates_that_may_be_two_days_are_asked_for(file: Path) -> None:
    text = "order_id,date,total,currency\n1,3/4/2026 6:05:00 PM,5,EUR\n"
    with pytest.raises(ValueError, match="expected --dates day-first or --dates month-first"):
        read(file, text)
    (order,) = read_orders(file, {}, day_first=True).orders
    assert order.time == moment(2026, 4, 3, 18, 5)


def test_columns_without_a_value_are_no_numbers_of_orders(file: Path) -> None:
    file.write_text("order_id (metadata),order_id,id\n,5,ch_1\n,6,ch_2\n")
    assert [(one.column, one.rank) for one in numbers_in(file, None)] == [
        ("order_id", 1),
        ("id", 2),
    ]


def test_what_names_a_person_or_is_a_free_text_is_no_number_of_an_order(file: Path) -> None:
    file.write_text(
        "Name,passthrough,Transaction ID\n"
        'Ann,"{""mail"":""a@example.com""}",9AB1\n'
        "Bob Miller,b@example.com,9AB2\n"
    )
    assert [one.column for one in numbers_in(file, None)] == ["Transaction ID"]
    file.write_text("Name\nAnn\n")
    with pytest.raises(ValueError, match="expected --id-column"):
        numbers_in(file, None)


@pytest.mark.parametrize(
    ("written", "key"),
    [(Written(), "#1001"), (Written(bare=True), "1001"),
     (Written(True, "gid://shopify/Order/"), "gid://shopify/Order/1001")],
)  # fmt: skip
def test_the_number_of_an_order_is_written_as_the_app_does(written: Written, key: str) -> None:
    assert written("#1001") == key
