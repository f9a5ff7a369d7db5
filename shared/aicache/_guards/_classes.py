"""Closed classes of English words: days, months, units, colours, places, ... Data only.

A list has one member after the other, separated by `|`; a member's words mean the same, and the first is its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from aicache._guards._base import word_set

__all__ = ["CLASSES", "CURRENCIES", "ONE_SIDED", "UNIT_WORDS"]

_LISTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "day": """
            monday mondays | tuesday tuesdays | wednesday wednesdays | thursday thursdays | friday fridays |
            saturday saturdays | sunday sundays | weekend weekends | weekday weekdays
            """,
        "month": """
            january jan | february feb | april apr | june jun | july jul | august aug | september sep sept |
            october oct | november nov | december
            """,
        "season": """
            summer summers | winter winters | autumn
            """,
        "holiday": """
            christmas xmas | easter | halloween | thanksgiving | diwali | ramadan | hanukkah |
            valentine valentines
            """,
        "daypart": """
            morning mornings | noon | afternoon afternoons | evening evenings | midnight | am a.m | pm p.m |
            breakfast | lunch | dinner supper
            """,
        "moment": """
            today | tomorrow | yesterday | tonight
            """,
        "time unit": """
            second seconds sec secs | minute minutes | hour hours hr hrs hourly | day days daily |
            week weeks weekly | fortnight fortnights | month months monthly | quarter quarters quarterly |
            year years yearly annual annually | decade decades | century centuries
            """,
        "unit": """
            mm millimeter millimeters millimetre millimetres | cm centimeter centimeters centimetre centimetres
            | m meter meters metre metres | km kilometer kilometers kilometre kilometres kms | inch inches |
            ft foot feet | yd yard yards | mi mile miles | mg milligram milligrams | g gram grams |
            kg kilogram kilograms kilo kilos kgs | lb pound-mass lbs | oz ounce ounces | ton tons tonne tonnes |
            ml milliliter milliliters millilitre millilitres | l liter liters litre litres | cup cups |
            pint pints | quart quarts | gallon gallons | tbsp tablespoon tablespoons | tsp teaspoon teaspoons |
            celsius centigrade | fahrenheit | kelvin | acre acres | hectare hectares | watt watts |
            kw kilowatt kilowatts | volt volts | amp amps ampere amperes | hz hertz | mhz megahertz |
            ghz gigahertz | byte bytes | kb kilobyte kilobytes | mb megabyte megabytes | gb gigabyte gigabytes |
            tb terabyte terabytes | calorie calories | joule joules | % percent pct percentage | degree degrees
            | mph | kmh kph
            """,
        "currency": """
            usd dollar dollars | eur euro euros | gbp pound pounds sterling quid | jpy yen | inr rupee rupees rs
            | cny yuan renminbi rmb | rub ruble rubles rouble roubles | krw | mxn peso pesos | chf franc francs
            | brl | cad | aud | nzd | sek | nok | dkk | zar | pln zloty | sgd | hkd | thb baht | bitcoin btc |
            ethereum eth
            """,
        "colour": """
            red | blue | green | yellow | orange | purple violet | pink | brown | black | white | grey gray |
            beige | gold golden | silver
            """,
        "kin": """
            mother mom mum mama mommy | father dad papa daddy | sister sisters | brother brothers |
            daughter daughters | son sons | wife wives | husband husbands | boyfriend boyfriends |
            girlfriend girlfriends | aunt aunts | uncle uncles | niece nieces | nephew nephews | cousin cousins
            | grandmother grandma granny | grandfather grandpa | grandson grandsons |
            granddaughter granddaughters | fiance | fiancee
            """,
        "compass": """
            north northern | south southern | east eastern | west western | northeast | northwest | southeast |
            southwest
            """,
        "place": """
            usa america american americans u.s u.s.a | uk britain british britons u.k | england english |
            scotland scottish scots scot | wales welsh | ireland irish gaelic | canada canadian canadians |
            mexico mexican mexicans | brazil brazilian brazilians | argentina argentinian | chile chilean |
            peru peruvian | colombia colombian | venezuela venezuelan | cuba cuban cubans | france french |
            germany german germans | spain spanish | italy italian italians | portugal portuguese |
            netherlands holland dutch | belgium belgian | switzerland swiss | austria austrian | poland polish |
            czech | hungary hungarian | romania romanian | ukraine ukrainian ukrainians |
            russia russian russians | sweden swedish | norway norwegian | denmark danish | finland finnish |
            iceland icelandic | greece greek greeks | turkey turkish | israel israeli israelis | hebrew |
            palestine palestinian palestinians | arabic | arabia saudi | egypt egyptian egyptians |
            morocco moroccan | kenya kenyan | nigeria nigerian nigerians | ethiopia ethiopian | ghana ghanaian |
            iran iranian iranians persian farsi | iraq iraqi iraqis | syria syrian syrians |
            afghanistan afghan afghans | pakistan pakistani pakistanis | india indian indians | hindi | urdu |
            bengali | tamil | telugu | marathi | punjabi punjab | gujarati gujarat | bangladesh bangladeshi |
            nepal nepali nepalese | lanka lankan | china chinese mandarin | cantonese | taiwan taiwanese |
            japan japanese | korea korean koreans | vietnam vietnamese | thailand thai |
            malaysia malaysian malay | singapore | indonesia indonesian | philippines filipino filipinos tagalog
            | zealand | dubai uae | swahili | latin | sanskrit | africa african africans | asia asian asians |
            europe european europeans eu | australia australian australians | antarctica | paris | london |
            berlin | rome | madrid | barcelona | amsterdam | vienna | lisbon | dublin | moscow | istanbul |
            tokyo | beijing | shanghai | seoul | bangkok | delhi | mumbai bombay | bangalore bengaluru | chennai
            | hyderabad | kolkata calcutta | pune | sydney | melbourne | toronto | vancouver | boston | chicago
            | seattle | denver | miami | dallas | houston | texas | california | florida | hawaii | alaska |
            vegas | york | orleans | orlando | atlanta | phoenix | detroit | philadelphia
            """,
        "faith": """
            islam muslim muslims islamic | christianity christian christians | judaism jewish jew jews |
            hinduism hindu hindus | buddhism buddhist buddhists | sikhism sikh sikhs |
            catholicism catholic catholics | protestantism protestant protestants | atheism atheist atheists
            """,
        "asker": """
            when | where | who | why
            """,
        "amount asked": """
            how-many | how-much | how-long | how-far | how-often | how-old | how-fast | how-tall | how-big
            """,
        "owner": """
            my mine our ours | your yours | his | her hers | their theirs
            """,
        "rank": """
            gold | silver | bronze | platinum
            """,
        "sex": """
            male males man men boy boys guy guys | female females woman women girl girls lady ladies
            """,
        "creature": """
            cat cats kitten kittens | dog dogs puppy puppies | horse horses | cow cows | bird birds | fish |
            rabbit rabbits | snake snakes | spider spiders
            """,
        "meat": """
            beef | pork | chicken | turkey | lamb | salmon | tuna | shrimp
            """,
        "program language": """
            python | java | javascript js | typescript | ruby | rust | golang | php | perl | kotlin | scala |
            swift | bash | powershell
            """,
        "system": """
            windows | linux | macos mac osx | ubuntu | debian | android | ios | iphone iphones | ipad ipads
            """,
        "database": """
            mysql | postgres postgresql | sqlite | mongodb | oracle | redis
            """,
        "http verb": """
            get | post | put | delete | patch
            """,
        "age": """
            infant infants baby babies newborn newborns | toddler toddlers | child children kid kids |
            teenager teenagers teen teens adolescent adolescents | adult adults | senior seniors elderly
            """,
        "body": """
            knee knees | elbow elbows | shoulder shoulders | ankle ankles | wrist wrists | hip hips | neck |
            finger fingers | toe toes | eye eyes | ear ears | nose | throat | chest | stomach | liver | kidney kidneys |
            lung lungs | heart | brain | tooth teeth | arm arms | leg legs
            """,
        "drug": """
            ibuprofen advil nurofen | acetaminophen paracetamol tylenol | aspirin | naproxen | amoxicillin |
            penicillin | metformin | insulin | sertraline zoloft | fluoxetine prozac | antibiotic antibiotics |
            antihistamine antihistamines | antidepressant antidepressants
            """,
        "state of body": """
            pregnant pregnancy | breastfeeding
            """,
        "transport": """
            car cars | bus buses coach | train trains | flight flights plane planes | ferry ferries |
            bike bikes bicycle bicycles | taxi taxis cab | subway metro underground | tram trams
            """,
        "document": """
            passport passports | visa visas | licence licences license licenses | invoice invoices receipt receipts |
            ticket tickets
            """,
        "shape": """
            circle circles | triangle triangles | rectangle rectangles | cylinder cylinders | cone cones |
            sphere spheres | pyramid pyramids | prism prisms | hexagon hexagons | pentagon pentagons | ellipse ellipses
            """,
        "arithmetic": """
            sum | product | quotient | ratio
            """,
        "matrix": """
            inverse | transpose | determinant | trace | eigenvalue eigenvalues | eigenvector eigenvectors
            """,
        "superlative": """
            cheapest | fastest quickest | easiest simplest | safest | nearest closest | healthiest | strongest
            """,
        "material": """
            leather | cotton | wool woollen | linen | silk | polyester | nylon | fabric | plastic | wooden wood |
            metal steel | glass | ceramic | velvet | suede
            """,
        "finish": """
            glossy | matte matt
            """,
        "income": """
            rental | dividend dividends | salary wages | pension | freelance
            """,
        "money": """
            mortgage | overdraft | savings | pension | insurance
            """,
        "credential": """
            username | password passcode | pin
            """,
        "detail": """
            name names | date dates | address addresses | email
            """,
        "address": """
            billing | shipping delivery
            """,
        "fate": """
            return returns returned returning | exchange exchanges exchanged exchanging |
            repair repairs repaired repairing
            """,
        "stay": """
            pause pauses paused suspend suspended | cancel cancels cancelled canceled cancelling |
            renew renews renewed renewing
            """,
        "channel": """
            phone telephone | chat | email e-mail | post letter | sms
            """,
        "relation in time": """
            before | after | while during
            """,
        "aspect": """
            still | already | again
            """,
        "multiple": """
            half halve halved | double doubled doubles | triple tripled
            """,
        "marital status": """
            married | divorced | widowed
            """,
        "severity": """
            mild | moderate | severe
            """,
        "degree": """
            linear | quadratic | cubic | exponential | logarithmic
            """,
        "diet": """
            vegan | vegetarian | halal | kosher
            """,
        "lodging": """
            hotel hotels | hostel hostels | apartment apartments | campsite campsites | resort resorts
            """,
        "size": """
            small smaller | medium | large larger | xl
            """,
        "git": """
            commit commits | push | pull | merge merges | rebase rebases | stash | fetch
            """,
        "collection": """
            list lists | tuple tuples | dict dicts dictionary dictionaries | array arrays | queue queues | heap heaps |
            string strings | integer integers int ints | float floats | boolean booleans bool | char chars
            """,
        "device": """
            tablet tablets | laptop laptops | desktop | tv television | printer printers | camera cameras |
            headphones earphones earbuds
            """,
        "format": """
            json | xml | yaml | csv | html | pdf | png | jpeg jpg | gif | mp3 | mp4
            """,
    }
)

ONE_SIDED: Final = frozenset(
    {
        "day",
        "month",
        "season",
        "holiday",
        "unit",
        "currency",
        "colour",
        "kin",
        "compass",
        "place",
        "faith",
        "program language",
        "system",
        "database",
        "format",
    }
)
"""Classes of which a mention in one text only is already a difference. In the others both texts must name
different members: questions about "today" or "you" often leave the word out."""

_SYMBOLS: Final = word_set("m g l ft yd mi lb oz am pm amp kw hz cup cups")
"""Units too short or too common to be one away from a number."""


def _members(*kinds: str) -> Iterator[tuple[str, str, str]]:
    """(class, name of the member, word) for every word of these classes."""
    for kind in kinds:
        for member in _LISTS[kind].split("|"):
            name = member.split()[0]
            for word in member.split():
                yield kind, name, word


def _by_word() -> Mapping[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for kind, name, word in _members(*_LISTS):
        if word not in _SYMBOLS:
            found[word] = (*found.get(word, ()), (kind, name))
    return MappingProxyType(found)


CLASSES: Final = _by_word()
"""Word -> the classes it belongs to, each with the member's name."""

UNIT_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        word: name
        for _, name, word in _members("time unit", "unit", "currency", "daypart")
        if not word.endswith("ly")  # "twice daily" is twice, not two days.
    }
)
"""Words that, behind a number, are its unit, and the unit's one name."""

CURRENCIES: Final = frozenset(name for _, name, _ in _members("currency"))
"""The one names of the currencies."""
