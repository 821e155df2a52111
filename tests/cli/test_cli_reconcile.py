"""reconcile: which paid orders never reached Meta, by which channel, why; and what may be sent."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from capi_middleware import CAPI, UserData
from capi_middleware.cli.orders import read_orders
from capi_middleware.events import SENT, Count, Row, Sighting
from capi_middleware.store.records import Settlement
from capi_middleware.testing import FakeMeta
from tests.support.commands import Site, site
from tests.support.configs import PIXEL_ID, SECRET
from tests.support.stores import store_rows

DAY = 86_400
NEW_SECRET = "another-secret-of-more-than-32-characters"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch, FakeMeta()) as made:
        yield made


def stamp(ago: float) -> str:
    return datetime.fromtimestamp(time.time() - ago, UTC).isoformat()


def write(shop: Site, *orders: tuple[str, float], **more: str) -> str:
    """orders.csv of (id, seconds ago); `more` are further columns, the same in each line."""
    head = ["order_id", "paid_at", "total", "currency", "email", *more]
    lines = [
        ",".join([name, stamp(ago), "10.50", "EUR", f"{name}@example.com", *more.values()])
        for name, ago in orders
    ]
    path = shop.folder / "orders.csv"
    path.write_text("\n".join([",".join(head), *lines]) + "\n")
    return str(path)


def purchase(capi: CAPI, number: str, ago: float, server: str, browser: str, **row: Any) -> str:
    """A Purchase of this order in the ledger, in these states; its event_id."""
    event_id = capi.issuer.mint("Purchase", number)
    made = Row(
        event_id=event_id, event_name="Purchase", pixel_id=PIXEL_ID, browser=browser,
        event_time=time.time() - ago, payload=None, server=server, **row,  # type: ignore[arg-type]
    )  # fmt: skip
    store_rows(capi.store, made)
    return event_id


def why(told: Any) -> dict[str, tuple[str, str]]:
    """(why, replay) by order."""
    return {one["order"]: (one["why"], one["replay"]) for one in told["missing"]}


def test_each_order_is_reached_by_a_channel_or_missing_for_a_reason(shop: Site) -> None:
    with shop.capi() as capi:
        purchase(capi, "A", 100, "delivered", SENT)
        purchase(capi, "B", 100, "delivered", "script_blocked")
        purchase(capi, "C", 100, "unmapped", SENT)
        purchase(capi, "D", 100, "expired", "not_run")
        purchase(capi, "E", 100, "dropped", "not_run")
        capi.track("Purchase", dedupe_key="F", value=1, currency="EUR")
        lease = capi.store.lease(PIXEL_ID, limit=9, seconds=9)
        dead = [Settlement(one.key, "dead", "code 100/2804050") for one in lease.events]
        capi.store.settle(lease.lease_id, dead)
        capi.track("Purchase", dedupe_key="G", value=1, currency="EUR")
    path = write(shop, *((name, 100.0) for name in "ABCDEFG"), ("H", 50 * 3600.0))
    told = shop.told("reconcile", path)
    assert {(one["reached"], one["orders"]) for one in told["outcomes"]} == {
        ("both", 1), ("server", 1), ("browser", 1), ("waiting", 1), ("no", 1),
    }  # fmt: skip
    assert told["outcomes"][0]["value"] == {"EUR": 10.5}
    missing = why(told)
    assert missing == {
        "D": ("expired, browser: not_run", "too old, or Meta may have counted it"),
        "E": ("no server copy (dropped), browser: not_run", "the ledger holds it without a copy"),
        "F": ("rejected by Meta, code 100/2804050, browser: unpaired",
              "see dead-letters requeue"),
        "H": ("never tracked", "yes"),
    }  # fmt: skip
    done = shop.run("reconcile", path)
    assert done.exit_code == 1
    assert "order H (line 9" in done.stdout


def test_an_order_whose_row_was_pruned_is_known_and_not_sent_again(shop: Site) -> None:
    with shop.capi() as capi:
        purchase(capi, "A", 4 * DAY, "delivered", SENT)
        capi.store.prune(time.time() - DAY)
    path = write(shop, ("A", 4.0 * DAY))
    told = shop.told("reconcile", path, "--replay")
    assert (told["queued"], told["missing"]) == (0, [])
    (outcome,) = told["outcomes"]
    assert outcome["reached"] == "tracked"
    assert outcome["why"] == f"tracked on {stamp(4 * DAY)[:10]}, its row was pruned"
    assert shop.run("reconcile", path).exit_code == 0


def test_replay_queues_what_was_never_tracked_with_the_order_s_time(shop: Site) -> None:
    path = write(shop, ("H", 5 * DAY), phone="+49 30 1234567")
    assert shop.run("reconcile", path).exit_code == 1
    told = shop.told("reconcile", path, "--replay")
    assert told["queued"] == 1
    assert why(told)["H"][1] == "queued"
    assert shop.run("deliver", "--once").exit_code == 0
    (sent,) = shop.fake.received.server
    assert abs(sent.event["event_time"] - (time.time() - 5 * DAY)) < 60
    assert (sent.event["custom_data"]["value"], sent.event["custom_data"]["currency"]) == (
        10.5, "EUR",
    )  # fmt: skip
    assert set(sent.event["user_data"]) == {"em", "ph"}
    assert b"example.com" not in (shop.folder / "capi.db").read_bytes()
    with shop.capi() as capi:
        assert sent.event["event_id"] == capi.issuer.mint("Purchase", "H")
    again = shop.told("reconcile", path, "--replay")
    assert (again["queued"], again["missing"]) == (0, [])
    assert shop.run("reconcile", path).exit_code == 0


@pytest.mark.parametrize(
    ("ago", "more", "text"),
    [
        (8 * DAY, {}, "more than seven days ago"),
        (-DAY, {}, "in the future"),
        (40 * DAY, {}, "older than the ledger"),
        (DAY, {"consent": "no"}, "denied consent"),
    ],
)
def test_what_may_not_be_sent_is_not(
    shop: Site, ago: float, more: dict[str, str], text: str
) -> None:
    told = shop.told("reconcile", write(shop, ("H", ago), **more), "--replay")
    assert text in why(told)["H"][1]
    assert told["queued"] == 0
    with shop.capi() as capi:
        assert capi.store.depth() == {}


@pytest.mark.parametrize(
    ("line", "text"),
    [("H,{time},,EUR,h@example.com", "value and a currency"),
     ("H,{time},9,,h@example.com", "value and a currency"),
     ("H,{time},9,EUR,", "email or a phone")],
)  # fmt: skip
def test_an_order_that_meta_would_refuse_is_not_sent(shop: Site, line: str, text: str) -> None:
    path = shop.folder / "orders.csv"
    path.write_text("order_id,paid_at,total,currency,email\n" + line.format(time=stamp(DAY)))
    told = shop.told("reconcile", str(path), "--replay")
    assert text in why(told)["H"][1]
    assert told["queued"] == 0


def test_an_order_that_may_be_there_under_another_id_is_not_sent(shop: Site) -> None:
    with shop.capi() as capi:
        capi.track("Purchase", value=1, currency="EUR", event_time=time.time() - DAY)
    path = write(shop, ("H", DAY), ("I", 3 * DAY))
    told = shop.told("reconcile", path, "--replay")
    missing = why(told)
    assert "no dedupe_key" in missing["H"][1]
    assert missing["I"][1] == "queued"


@pytest.mark.parametrize(
    ("hours", "when", "zone", "queued"),
    [(5, "%Y-%m-%dT%H:%M:%S", (), 0), (5, "%Y-%m-%dT%H:%M:%S", ("--timezone", "UTC"), 1),
     (5, "%Y-%m-%d", ("--timezone", "UTC"), 0), (5, "%Y-%m-%dT%H:%M:%S+00:00", (), 1)],
)  # fmt: skip
def test_the_less_a_time_says_the_more_events_may_be_the_order(
    shop: Site, hours: int, when: str, zone: tuple[str, ...], queued: int
) -> None:
    moment = datetime.fromtimestamp(time.time() - 2 * DAY, UTC).replace(hour=12)
    with shop.capi() as capi:
        capi.track("Purchase", value=1, currency="EUR",
                   event_time=moment.timestamp() + hours * 3600)  # fmt: skip
    path = shop.folder / "orders.csv"
    line = f"H,{moment.strftime(when)},9.00,EUR,h@example.com"
    path.write_text(f"order_id,paid_at,total,currency,email\n{line}\n")
    assert shop.told("reconcile", str(path), "--replay", *zone)["queued"] == queued


@pytest.mark.parametrize("by", ["option", "column"])
def test_an_order_of_days_with_denials_needs_consent(shop: Site, by: str) -> None:
    with shop.capi() as capi:
        capi.store.count([Count("suppressed", "consent", "Purchase", PIXEL_ID)])
        capi.store.flush(9)
    path = write(shop, ("H", 60))
    told = shop.told("reconcile", path, "--replay")
    assert told["queued"] == 0
    assert "consent unknown" in why(told)["H"][1]
    arguments = ("--consented",) if by == "option" else ()
    agreed = write(shop, ("H", 60), **({} if arguments else {"consent": "yes"}))
    assert shop.told("reconcile", agreed, "--replay", *arguments)["queued"] == 1


def test_what_the_browser_alone_made_and_lost_is_sent(shop: Site) -> None:
    with shop.capi() as capi:
        event_id = capi.issuer.mint("Purchase", "H")
        blocked = Sighting(event_id, "Purchase", PIXEL_ID, "request_blocked")
        capi.store.sight([blocked]).result(9)
    path = write(shop, ("H", 60))
    told = shop.told("reconcile", path, "--replay")
    assert why(told)["H"] == ("the browser alone made it, browser: request_blocked", "queued")


def test_what_the_browser_may_have_sent_days_ago_is_not_sent_again(shop: Site) -> None:
    with shop.capi() as capi:
        purchase(capi, "H", 3 * DAY, "unknown", "left_early")
    told = shop.told("reconcile", write(shop, ("H", 3 * DAY)), "--replay")
    assert why(told)["H"][1] == "the browser copy may have reached Meta"


def test_an_order_that_could_not_be_read_is_not_called_reached(shop: Site) -> None:
    with shop.capi() as capi:
        purchase(capi, "A", 60, "delivered", "sent")
    path = write(shop, ("A", 60))
    assert shop.run("reconcile", path).exit_code == 0
    with Path(path).open("a") as file:
        file.write(",no time,\n")
    assert shop.run("reconcile", path).exit_code == 1


def test_a_pixel_that_must_not_get_it_holds_the_order_back(shop: Site) -> None:
    shop.configure('[[pixels]]\nid = "222"\naccess_token = "t"')
    with shop.capi() as capi:
        store_rows(
            capi.store,
            Row(event_id="t1", event_name="Purchase", pixel_id="222", payload=None,
                event_time=time.time() - DAY, server="delivered"),
        )  # fmt: skip
    told = shop.told("reconcile", write(shop, ("H", DAY)), "--replay")
    assert told["queued"] == 0
    assert [one["replay"] for one in told["missing"]] == [
        "it may be one of them under another event_id (no dedupe_key)"
    ] * 2


def test_events_signed_by_an_older_key_are_found(shop: Site) -> None:
    with shop.capi() as capi:
        purchase(capi, "A", 60, "delivered", SENT)
    shop.configure(secret_key=[NEW_SECRET, SECRET])
    assert shop.run("reconcile", write(shop, ("A", 60))).exit_code == 0


def test_refunded_cancelled_and_unpaid_orders_that_were_sent_are_named(shop: Site) -> None:
    with shop.capi() as capi:
        for number in ("A", "B", "E", "P"):
            purchase(capi, number, 60, "delivered", SENT)
        capi.store.prune(1e12)  # what is remembered of orders is left
        purchase(capi, "C", 60, "unmapped", SENT)
        purchase(capi, "D", 60, "expired", "not_run")
        purchase(capi, "F", 60, "delivered", SENT)
    words = ["paid", "refunded", "Cancelled", "voided", "pending", "", "paid", "refunded"]
    numbers = ["P", "A", "B", "C", "D", "E", "G", "F"]
    path = shop.folder / "orders.csv"
    lines = [
        f"{number},{stamp(60)},1.00,EUR,{word}" for number, word in zip(numbers, words, strict=True)
    ]
    head = "order_id,paid_at,total,currency,status"
    path.write_text("\n".join([head, *lines, f"A,{stamp(60)},1.00,EUR,refunded"]) + "\n")
    told = shop.told("reconcile", str(path))
    named = [(one["order"], one["status"], one["reached"]) for one in told["sent_unpaid"]]
    assert named == [
        ("A", "refunded", "tracked"), ("B", "Cancelled", "tracked"), ("C", "voided", "browser"),
        ("F", "refunded", "both"),
    ]  # fmt: skip
    text = shop.run("reconcile", str(path)).output
    assert "order F (line 9): refunded, but Meta got its Purchase (both)" in text


SHOPIFY = """\
Name;Email;Financial Status;Paid at;Currency;Total;Lineitem name
#1001;a@example.com;paid;2026-11-20 14:03:22 +0100;EUR;1.234,56;Kettle
#1001;a@example.com;;;;;Cup
#1002;b@example.com;pending;;EUR;5,00;Cup
#1003;c@example.com;paid;yesterday;EUR;5,00;Cup

;d@example.com;paid;2026-11-20 14:03:22 +0100;EUR;5,00;Cup
#1004;e@example.com;partially_refunded;2026-11-20 14:03:22 UTC;EUR;much;Cup
"""


def test_an_export_is_read_by_the_usual_names_and_bad_lines_are_named(shop: Site) -> None:
    path = shop.folder / "orders.csv"
    path.write_text("\ufeff" + SHOPIFY)
    told = shop.told("reconcile", str(path))
    assert (told["orders"], told["unpaid"]) == (1, 1)
    (order,) = told["missing"]
    assert (order["order"], order["value"], order["time"]) == (
        "#1001", 1234.56, "2026-11-20T13:03:22Z",
    )  # fmt: skip
    assert told["bad_lines"] == [
        {"line": 5, "why": "a time that is neither ISO 8601 nor Unix seconds"},
        {"line": 7, "why": "no order id"},
        {"line": 8, "why": "a value that is no number"},
    ]
    assert "line 5: a time" in shop.run("reconcile", str(path)).stdout


@pytest.mark.parametrize(
    ("text", "arguments", "code", "said"),
    [
        ("a,b\n1,2\n", (), 2, "found no column for the id"),
        ("a,b\n1,2\n", ("--id-column", "a"), 2, "found no column for the time"),
        ("a,b\n1,2\n", ("--id-column", "c"), 2, "found no column 'c', expected one of a, b"),
        ("", (), 2, "found no column for the id"),
        ("id,date\n", (), 3, "0 paid orders"),
        ("id,date\n1,1790000000\n", ("--timezone", "Moon"), 2, "Moon"),
        ("a,b\n1,1790000000\n", ("--id-column", "a", "--time-column", "b"), 1, "1 paid orders"),
    ],
)
def test_a_file_that_holds_no_orders_has_an_exit_code_of_its_own(
    shop: Site, text: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    path = shop.folder / "orders.csv"
    path.write_text(text)
    done = shop.run("reconcile", str(path), *arguments)
    assert done.exit_code == code
    assert said in done.output


def test_a_file_that_cannot_be_read_is_one_clear_line(shop: Site) -> None:
    (shop.folder / "orders.csv").write_bytes(b"id,date\n\xff\xfe,1\n")
    for name in ("missing.csv", "orders.csv"):
        done = shop.run("reconcile", str(shop.folder / name))
        assert done.exit_code == 2
        assert "found no readable CSV file" in done.output
    assert "save it as CSV UTF-8; else: iconv -f windows-1252 -t utf-8" in done.output


def test_a_german_shop_s_export_of_excel_is_read_once_it_is_unicode(shop: Site) -> None:
    text = (
        "Bestellnummer;Bestelldatum;Gesamtbetrag;Währung;Zahlungsstatus;E-Mail\r\n"
        "1001;28.11.2026 10:15;1.234,56;EUR;Bezahlt;a@example.com\r\n"
        "1002;27.11.2026 09:00;59,90;EUR;storniert;b@example.com\r\n"
    )
    path = shop.folder / "orders.csv"
    path.write_bytes(text.encode("cp1252"))
    for command in (["reconcile"], ["import", "--event", "Purchase"]):
        done = shop.run(*command, str(path))
        assert (done.exit_code, "save it as CSV UTF-8" in done.output) == (2, True), done.output
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        found = shop.told("reconcile", str(path), "--timezone", "Europe/Berlin")
        assert [(one["order"], one["value"]) for one in found["missing"]] == [("1001", 1234.56)]
        assert found["left_out"] == {"cancelled": 1}


def test_a_thousand_orders_and_more_are_looked_up(shop: Site) -> None:
    with shop.capi() as capi:
        store_rows(capi.store, *(
            Row(event_id=capi.issuer.mint("Purchase", str(n)), event_name="Purchase",
                pixel_id=PIXEL_ID, event_time=time.time() - 60, payload=None, server="delivered")
            for n in range(2500)
        ))  # fmt: skip
    path = write(shop, *((str(n), 60.0) for n in range(2500)))
    told = shop.told("reconcile", path)
    assert [(one["reached"], one["orders"]) for one in told["outcomes"]] == [("server", 2500)]


@pytest.mark.parametrize(
    ("given", "currency", "value"),
    [("12.50", "EUR", 12.5), ("12,50 €", "EUR", 12.5), ("1.234,56", "EUR", 1234.56),
     ("1,234.56", "USD", 1234.56), ("1.234.567", "EUR", 1234567), ("7", "EUR", 7),
     ("10.500", "KWD", 10.5), ("10.500", "EUR", None), ("1,234", "USD", None),
     ("", "EUR", None), ("-5.00", "EUR", None), ("--", "EUR", None), ("9.", "EUR", 9)],
)  # fmt: skip
def test_a_value_is_read_as_it_is_written_or_not_at_all(
    tmp_path: Path, given: str, currency: str, value: float | None
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(f"id;date;total;currency\n1;1790000000;{given};{currency}\n")
    read = read_orders(path, {})
    values = [None if one.value is None else float(one.value) for one in read.orders]
    assert values == ([] if value is None and given else [value])
    assert len(read.orders) + len(read.bad_lines) + sum(read.left_out.values()) == 1


def test_an_event_that_no_pixel_takes_is_a_mistake(shop: Site) -> None:
    shop.configure(pixel='events = ["Lead"]')
    done = shop.run("reconcile", write(shop, ("A", 60)))
    assert (done.exit_code, "one that a pixel takes" in done.output) == (2, True)


@pytest.mark.parametrize("event_time", [0.0, -1.0])
def test_an_event_time_that_meta_refuses_is_refused(shop: Site, event_time: float) -> None:
    moment = event_time or time.time() + 90
    with shop.capi() as capi, pytest.raises(ValueError, match="event_time: found"):
        capi.track("Lead", user_data=UserData(em="a@example.com"), event_time=moment)


def export(shop: Site, *numbers: str, ago: float = DAY, names: str = "Name,Id") -> str:
    """An export of Shopify with these numbers; its ids are 5501 and on."""
    head = f"{names},Financial Status,Paid at,Total,Currency,Email"
    lines = [
        f"{number},{5501 + n},paid,{stamp(ago)},10.50,EUR,p{n}@example.com"
        for n, number in enumerate(numbers)
    ]
    path = shop.folder / "export.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("of_the_app", "column", "first"),
    [("#{}", "Name", "#1001"), ("{}", "Name", "1001"), ("id", "Id", "5501")],
)
def test_the_ledger_tells_which_column_is_the_dedupe_key_and_how_it_is_written(
    shop: Site, of_the_app: str, column: str, first: str
) -> None:
    key = "5502" if of_the_app == "id" else of_the_app.format(1002)
    with shop.capi() as capi:
        purchase(capi, key, DAY, "delivered", SENT)
    told = shop.told("reconcile", export(shop, "#1001", "#1002"), "--replay")
    shown = told["dedupe_key"]
    assert (shown["column"], shown["first"]) == (column, first)
    assert (shown["in_ledger"], shown["looked_up"]) == (1, 2)
    assert why(told) == {first: ("never tracked", "queued")}
    with shop.capi() as capi:
        (known,) = capi.store.find([capi.issuer.mint("Purchase", first)])
        assert (known.server, shown["event_id"]) == ("pending", known.event_id)


def test_where_two_columns_fit_and_the_ledger_knows_neither_the_command_asks(shop: Site) -> None:
    path = export(shop, "#1001")
    done = shop.run("reconcile", path)
    assert done.exit_code == 2
    assert "'Id' ('5501'), 'Name' ('#1001')" in " ".join(done.output.split())
    assert "--id-column" in done.output
    assert shop.told("reconcile", path, "--id-column", "Id", "--replay")["queued"] == 1


def test_nobody_guesses_a_number_sign_for_a_replay(shop: Site) -> None:
    path = export(shop, "#1001")
    told = shop.told("reconcile", path, "--id-column", "Name", "--replay")
    assert told["queued"] == 0
    assert "give --dedupe-key" in why(told)["#1001"][1]
    told = shop.told("reconcile", path, "--dedupe-key", "gid://shopify/Order/1001", "--replay")
    assert why(told) == {"gid://shopify/Order/1001": ("never tracked", "queued")}
    done = shop.run("reconcile", path, "--dedupe-key", "another")
    assert (done.exit_code, "that of the file's first order" in done.output) == (2, True)


def test_replays_in_any_form_and_order_never_make_a_second_id(shop: Site) -> None:
    with shop.capi() as capi:
        purchase(capi, "1001", DAY, "delivered", SENT)
    for numbers in (("#1001", "#1002", "#1003"), ("#1003", "#1002"), ("#1002", "#1001", "#1003")):
        shop.told("reconcile", export(shop, *numbers), "--replay")
    bare = export(shop, "1001", "1002", "1003", names="order_number,x")
    assert shop.told("reconcile", bare, "--replay")["queued"] == 0
    with shop.capi() as capi:
        rows = capi.store.recent(50)
        keys = [capi.issuer.mint("Purchase", key) for key in ("1001", "1002", "1003")]
        assert sorted(one.event_id for one in rows) == sorted(keys)


def test_orders_with_one_cause_are_one_row(shop: Site) -> None:
    with shop.capi() as capi:
        for n, days in enumerate((4.0, 5.0, 6.0)):
            purchase(capi, f"T{n}", days * DAY, "delivered", SENT)
        capi.store.prune(time.time() - DAY)
        for hours, n in ((30, 1), (40, 2)):
            for _ in range(n):
                capi.track("Purchase", value=1, currency="EUR",
                           event_time=time.time() - hours * 3600)  # fmt: skip
    tracked = [(f"T{n}", days * DAY) for n, days in enumerate((4.0, 5.0, 6.0))]
    nearby = [("N0", 30 * 3600.0), ("N1", 40 * 3600.0)]
    told = shop.told("reconcile", write(shop, *tracked, *nearby))
    assert [(one["reached"], one["orders"], one["why"]) for one in told["outcomes"]] == [
        ("tracked", 3, "tracked before, its row was pruned"),
        ("no", 2, "not in the ledger; events of that time have no order of this file"),
    ]


def test_what_is_left_out_is_told_apart(shop: Site) -> None:
    words = ["paid", "refunded", "cancelled", "pending"]
    lines = [f"{n},{stamp(60)},5.00,EUR,{word}" for n, word in enumerate(words)]
    path = shop.folder / "orders.csv"
    head = "order_id,paid_at,total,currency,status"
    path.write_text("\n".join([head, *lines, f"9,{stamp(60)},-5.00,EUR,paid"]) + "\n")
    text = " ".join(shop.run("reconcile", str(path)).output.split())
    assert "1 paid orders, left out: 1 refunded, 1 cancelled, 1 not paid, 1 negative" in text
