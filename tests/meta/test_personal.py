"""What must not leave in clear, and what is harmless."""

from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware.capture.urls import scrub_url, source_url
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.personal import ORDINARY_PATH, is_personal, is_token, parts_of_path

#: Parameters of addresses that say who somebody is, or that open a door.
PERSONAL = """
    attendeeName=Jane+Roe billing_first_name=Jane checkout[shipping_address][first_name]=Jane
    date-of-birth=1990-01-31 dateOfBirth=1990-01-31 fn=Jane ph=14155550123 jane.doe@example.com
    jane.doe%40example.com=1 resetToken=abc123 X-Amz-Signature=0f3a X-Amz-Credential=AKIA
    q=jane%2540example.com first-name=Jane last_name=Roe tel=0301234567 x=0301234567
    x=%2B49+30+1234567 x=(030)+1234567 iban=DE89370400440532013000 x=DE89370400440532013000
    x=DE89+3704+0044+0532+0130+00 x=4111111111111111 x=4111-1111-1111-1111 token=x
    access_token=EAAB sessionid=123 PHPSESSID=4f9c jwt=a.b.c x=eyJhbGciOi.eyJzdWIi.sig email=x
    e-mail=x user[email]=x customer_phone=1 password=hunter2 pwd=x code=8f7a state=abcdef
    api_key=abc apikey=abc key=abc otp=123456 pin=1234 invite=abc next=/reset?token=abc
    redirect=https://x.de/reset/4f9c8a7b6d5e4f3a2b1c0d9e8f7a6b5c
    x=4f9c8a7b6d5e4f3a2b1c0d9e8f7a6b5c x=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA== ssn=078-05-1120
    passport=C01X00T47 name=Jane vorname=Jane nachname=Roe prenom=Jeanne apellido=Garcia
    street=Main zip=94035 postcode=SW1A city=Berlin address=x lat=52.5 lng=13.4 ip=1.2.3.4
    gender=f sex=m age=34 username=jane login=jane user=jane userId=4711 customer_id=4711
    member=4711 hash=abcd sig=abc signature=abc hmac=abc nonce=abc csrf_token=abc
    authenticity_token=x SAMLResponse=x id_token=x recipient=Jane cc=4111 cvv=123 dob=1990
    birthday=x em=x external_id=42 fbp=fb.1.2.3 message=hello ln=Roe billing%5Bemail%5D=a
    unsubscribe=abc order[customer][phone]=1 geburtsdatum=1.1.1990 kundennummer=1234 telefon=12345
""".split()  # noqa: SIM905

#: Parameters of ordinary addresses: marketing, shops, travel, blogs.
HARMLESS = """
    utm_source=facebook utm_medium=cpc utm_campaign=Summer_Sale_2024_Retargeting
    utm_content=video-ad-15s-v2 utm_term=running+shoes utm_id=120211234567890123
    fbclid=IwAR0aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789 gclid=EAIaIQobChMI1234567890abcdefgh
    msclkid=0123456789abcdef0123456789abcdef ttclid=E.C.P.CiQ utm_source_platform=x
    utm_creative_format=x gad_source=1 gbraid=0AAAAA wbraid=CjgKCQ
    srsltid=AfmBOoq1234567890abcdefghijkl mc_cid=0123456789 mc_eid=abcdef0123 sku=AB-1234-XL
    page=2 sort=price_asc q=red+shoes variant=44123456789012 size=XL color=blue category=shoes
    brand=nike price_min=10 price_max=99 filter[color]=red filter.v.price.gte=10 orderby=price
    order=asc view=grid lang=de locale=de_DE currency=EUR country=DE ref=homepage
    source=newsletter campaign_id=120211234567890123 adset_id=120211234567890123
    ad_id=120211234567890123 placement=Facebook_Mobile_Feed product_id=123 productId=123 id=42
    cat=5 tag=sale promo=SUMMER24 coupon=SAVE10 discount=10 promo_code=SAVE10 coupon_code=WELCOME
    limit=24 offset=48 per_page=24 search=iphone+15 s=hoodie query=sofa keyword=lamp
    collection=winter-2024 preview=1 tab=reviews step=2 checkin=2026-12-01 checkout=2026-12-05
    adults=2 children=1 rooms=1 from=BER to=JFK date=2026-12-01 gender=women gclsrc=aw.ds _pos=1
    _ss=r pr_prod_strat=use_description pr_rec_id=abc12 pr_ref_pid=1234567890 pr_seq=uniform
    hsCtaTracking=x _hsmi=123456 epik=dj0yJnU9 irclickid=xyz irgwc=1 aff_id=12 affiliate=blog
    partner=abc sub_id=1 yclid=123 dclid=abc twclid=abc li_fat_id=0123 rdt_cid=1 ScCid=1
    campaign=spring ad_name=video1 adset_name=lookalike campaign_name=Brand+Awareness
    product_name=Red+Chair store=berlin stock=in rating=4 min_price=10 max_price=50 material=wood
    style=modern type=chair model=golf year=2020 fuel=diesel mileage=50000 theme=dark amp=1 v=2
    version=3 ab=b experiment=cta1 variant_id=1 option=a quantity=2 qty=1 add-to-cart=123
    add_to_cart=1 attribute_pa_size=xl attribute_pa_color=red post_type=product paged=2
    product_cat=shoes per-page=12 sort_by=best-selling sortBy=price-ascending grid_list=grid
    constraint=x shpxid=0b1 section_id=template--1 register=true country_code=DE currency_code=EUR
    lang_code=de color_code=ff0000 igshid=MzRlODBiNWFlZA== hl=en gl=us channel=email medium=email
    content=banner creative=123 network=g device=m matchtype=e targetid=kwd-123456
    loc_physical_ms=1004054 feeditemid= position=1t1 topic=news article=5 slug=red-chair
    path=/shop/chairs return=/cart next=/checkout redirect_to=/account user_type=new
    customer_type=returning age_group=adult
""".split()  # noqa: SIM905


def query_of(pair: str) -> str:
    made = source_url("https", "shop.example", b"/p", pair.encode())
    assert made is not None
    return made.removeprefix("https://shop.example/p")


@pytest.mark.parametrize("pair", PERSONAL)
def test_a_parameter_about_a_person_or_a_secret_never_leaves(pair: str) -> None:
    assert query_of(pair) == ""
    assert query_of(f"utm_source=fb&{pair}&page=2") == "?utm_source=fb&page=2"


def test_nothing_of_them_leaves_in_a_referrer() -> None:
    for pair in PERSONAL:
        assert scrub_url(f"https://other.example/x?{pair}") == "https://other.example/x"


@pytest.mark.parametrize("pair", HARMLESS)
def test_a_parameter_of_marketing_or_a_shop_leaves_as_it_is(pair: str) -> None:
    assert unquote_plus(query_of(pair)) == unquote_plus(f"?{pair}")


def test_the_site_s_word_on_a_parameter_counts_more_than_its_name() -> None:
    made = source_url(
        "https", "x.example", b"/", b"Code=a1b2&name=chair&page=2", {"page"}, {"code"}
    )
    assert made == "https://x.example/?Code=a1b2"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/reset/4f9c8a7b6d5e4f3a2b1c", "/reset/-"),
        ("/reset/password", "/reset/password"),
        ("/invite/abc123de", "/invite/-"),
        ("/u/jane.doe", "/u/-"),
        ("/users/42/orders", "/users/42/orders"),
        ("/u/jane%2540example.com", "/u/-"),
        ("/shop;jsessionid=1234ABC/x;color=red", "/shop/x;color=red"),
        ("/p/123e4567-e89b-12d3-a456-426614174000", "/p/-"),
        ("/call/+49-30-1234567", "/call/-"),
        ("/products/nike-air-max-90-white-2023-edition",) * 2,
        ("/collections/winter-2024/products/the-ultra-boost-22-running-shoes",) * 2,
        ("/blog/2024/05/how-to-choose-a-sofa",) * 2,
        ("/caf%C3%A9/%C3%A9t%C3%A9",) * 2,
    ],
)
def test_segments_that_are_tokens_or_persons_are_a_dash(path: str, kept: str) -> None:
    assert "/".join(parts_of_path(path.split("/"))) == kept


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ph", "+49 30 1234567"), ("fn", "Jane"), ("email", "x"), ("first_name", "Jane"),
        ("phone", 4930123), ("customerEmail", "x"), ("resetToken", "x"), ("em", "x"),
        ("external_id", "42"), ("note", "call +49 30 1234567"), ("search_string", "a@b.example"),
        ("search_string", "+49 30 1234567"), ("content_name", "DE89 3704 0044 0532 0130 00"),
        ("plan", "4111 1111 1111 1111"), ("plan", "eyJhbGciOi.eyJzdWIi.sig"),
    ],
)  # fmt: skip
def test_custom_data_about_a_person_is_left_out_and_told(key: str, value: object) -> None:
    assert clean("Lead", {key: value}) == ({}, [key])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plan", "pro"), ("content_name", "Chair No. 7"), ("order_id", "4111111111111111"),
        ("content_category", "Home > Chairs 2024"), ("city", "Berlin"), ("postal_code", "10115"),
        ("product_name", "Chair"), ("customer_type", "new"), ("lead_event_source", "Our CRM"),
        ("search_string", "iphone 15 pro 256"), ("checkin_date", "2026-12-24"),
        ("customer_lifetime_value", 12.5), ("destination_airport", "JFK"),
    ],
)  # fmt: skip
def test_custom_data_of_things_stays(key: str, value: object) -> None:
    assert clean("Lead", {key: value}) == ({key: value}, [])


@given(st.text(max_size=300))
def test_no_text_is_too_strange_to_be_judged(text: str) -> None:
    assert is_personal(text) in (True, False)
    assert is_token(text) in (True, False)
    assert len(list(parts_of_path(text.split("/")))) == len(text.split("/"))


@given(
    st.from_regex(r"(/([a-z]{1,9}|users|reset|[a-z0-9.-]{1,20}|[0-9+]{5,14})){1,5}", fullmatch=True)
)
def test_a_path_that_needs_no_judge_is_one_that_the_judge_leaves_alone(path: str) -> None:
    if ORDINARY_PATH.fullmatch(path):
        assert "/".join(parts_of_path(path.split("/"))) == path
