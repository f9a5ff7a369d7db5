"""Opposites of English: the two sides of an axis a line, words of one side beside each other. Data only."""

from __future__ import annotations

from typing import Final

__all__ = ["OPPOSITE_PAIRS"]

OPPOSITE_PAIRS: Final = """
    buy purchase | sell
    enable activate | disable deactivate
    activated | deactivated
    turn-on switch-on power-on | turn-off switch-off power-off
    lock | unlock
    block freeze | unblock unfreeze
    before prior | after
    pre | post
    import | export
    upload | download
    encrypt | decrypt
    encode | decode
    compress zip | decompress unzip extract
    serialize serialise marshal | deserialize deserialise unmarshal parse
    open | close shut
    opening | closing
    start begin launch | stop end finish quit
    increase raise grow rise gain | decrease reduce lower drop shrink lose fall
    maximize maximise | minimize minimise
    maximum max | minimum min
    most | least fewest
    more | less fewer
    best | worst
    better | worse
    good | bad
    cheap cheapest cheaper inexpensive | expensive costly pricey
    high higher highest | low lowest
    big bigger biggest large larger largest | small smaller smallest
    long longer longest | short shorter shortest
    tall taller tallest | short shorter shortest
    old older oldest | young younger youngest
    old older oldest | new newer newest
    fast faster fastest quick quicker quickest | slow slower slowest
    hot hotter hottest | cold colder coldest
    warm | cool
    hard harder hardest difficult | easy easier easiest
    hard | soft
    strong stronger strongest | weak weaker weakest
    heavy heavier heaviest | light lighter lightest
    thick | thin
    wide | narrow
    deep | shallow
    dark | light bright
    full | empty
    wet | dry
    clean | dirty
    rich | poor
    safe | dangerous risky
    true | false
    left | right
    up | down
    upper | lower
    above over | below under
    top | bottom
    front | back
    forward forwards | backward backwards reverse
    in | out
    inside indoor indoors inner internal | outside outdoor outdoors outer external
    input | output
    inbound incoming | outbound outgoing
    enter | exit leave
    entrance | exit
    arrive arrival | depart departure leave
    push | pull
    send | receive
    sender | receiver recipient
    lend loan | borrow
    lender | borrower
    give | take
    teach | learn
    teacher | student
    win | lose
    winner | loser
    victory | defeat
    attack | defend
    accept approve | reject decline refuse deny
    allow permit | forbid prohibit ban prevent
    agree | disagree
    like love | dislike hate
    include | exclude
    inclusive | exclusive
    add insert append | remove delete subtract
    create | delete destroy
    install | uninstall
    subscribe | unsubscribe
    follow | unfollow
    mute | unmute
    hide | show unhide
    pin | unpin
    check | uncheck
    select | deselect
    attach | detach
    connect | disconnect
    login log-in sign-in | logout log-out sign-out
    sign-up signup register | login log-in sign-in
    opt-in | opt-out
    check-in | check-out
    mount | unmount
    load | unload
    expand | collapse
    ascending | descending
    asc | desc
    positive | negative
    plus | minus
    addition | subtraction
    multiply | divide
    multiplication | division
    square | cube
    sine sin | cosine cos
    derivative differentiate | integral integrate
    numerator | denominator
    odd | even
    prime | composite
    rational | irrational
    convex | concave
    horizontal horizontally | vertical vertically
    row | column
    rows | columns
    width | height
    area | perimeter circumference
    radius | diameter
    mean average | median
    local | remote
    public | private
    client | server
    sync synchronous | async asynchronous
    static | dynamic
    mutable | immutable
    local | global
    parent | child
    first | last
    next upcoming following | previous last past prior
    early earlier earliest | late later latest
    always | never
    all every each everyone | none
    with | without
    for | against
    pros advantage advantages benefit benefits | cons disadvantage disadvantages drawback drawbacks
    cause causes | effect effects
    cause causes | cure prevention prevent
    symptom symptoms | treatment treatments treat cure
    symptom symptoms | cause causes
    acute | chronic
    benign | malignant
    bacterial bacteria | viral virus
    hyper | hypo
    hypertension | hypotension
    hyperglycemia | hypoglycemia
    hyperthyroidism | hypothyroidism
    systolic | diastolic
    oral | intravenous
    adult adults | child children kids
    male man men husband | female woman women wife
    boy boys | girl girls
    king | queen
    prince | princess
    actor | actress
    his | her
    he | she
    alive live | dead
    birth born | death died
    marry marriage married | divorce divorced
    single | married
    debit | credit
    deposit | withdraw withdrawal
    asset assets | liability liabilities
    profit profits | loss losses
    income revenue | expense expenses
    bull bullish | bear bearish
    call | put
    long-term | short-term
    fixed | variable floating
    gross | net
    roth | traditional
    stock stocks | bond bonds
    simple | compound
    buyer | seller
    landlord | tenant
    employer | employee employees
    hire | fire
    wholesale | retail
    used secondhand | new
    physical | virtual
    domestic | international
    departing | returning
    one-way | round-trip return
    single | double
    window | aisle
    economy | business
    pickup pick-up | dropoff drop-off delivery
    refund | charge
    refunded | charged
    checkin check-in | checkout check-out
    upgrade | downgrade
    hardware | software
    online | offline
    manual manually | automatic automatically
    active | inactive
    visible | hidden
    present | absent
    present current future | past
    major | minor
    majority | minority
    superior | inferior
    cheapest | best
    fewer | more
    atleast at-least | atmost at-most
    minimum | average
    maximum | average
    hot | iced
    day daytime | night nighttime
    sunrise | sunset
    summer | winter
    vegan vegetarian | meat
    raw | cooked
    sweet | sour
    fat | protein
    boil | freeze
    boiling | freezing melting
    melt | freeze
    inhale | exhale
    float | sink
    read | write
    reader | writer
    lowercase | uppercase
    prefix | suffix
    head | tail
    producer | consumer
    source | destination target
    supply | demand
    theory | practice
    question | answer
    problem | solution
    strength strengths | weakness weaknesses
    similarity similarities | difference differences
    same | different
    optimist | pessimist
    introvert | extrovert
    liberal | conservative
    democrat democrats | republican republicans
    war | peace
    friend friends | enemy enemies
    hero | villain
    heaven | hell
    guilty | innocent
pay | earn
hand carry-on | checked
outbound outward | return
expected required | forbidden prohibited
free | closed
credit | charge
allowed permitted | forbidden prohibited
mandatory compulsory | optional
temporary temporarily | permanent permanently
partial partially | full fully
partly | fully completely
together | separately
individual | joint
front | rear
upstream | downstream
singular | plural
cloud | premises
existing | new
catch | throw raise
edit | view
ahead | behind
guest | host
smooth | rough
loud noisy | quiet silent
sharp | blunt
tight | loose
straight | curly
awake | asleep
wake | sleep
continue | stop pause
remember | forget
save | spend waste
pass succeed | fail
fix repair | break
join | leave
lead | follow
land landing | take-off
rent lease | own buy
contract shrink | expand stretch
freeze | thaw
heat | cool
sit | stand
lie lying | stand standing
ask | answer
doctor | patient
plaintiff | defendant
ancestor | descendant
predecessor | successor
former | latter
former | current
initial | final
original | copy
real genuine | fake imaginary counterfeit
natural | artificial synthetic
urban | rural
native | foreign
ancient | modern
rare | common
simple basic | complex complicated advanced
beginner beginners | advanced expert experts
junior | senior
dense | sparse
solid | liquid
vein | artery
obese | underweight
constipation | diarrhea diarrhoea
union | intersection
domain | range
converge convergent | diverge divergent
floor | ceiling
adjacent | opposite
obtuse | acute
parallel | perpendicular
missing | damaged
missing | extra
incoming | outgoing
immediately instantly | eventually
sent | received
owner | guest
author | reviewer
caller | callee
personal private | business corporate
primary | secondary
main | backup
request | response
compile | runtime
abstract | concrete
necessary | sufficient
injective | surjective
arithmetic | geometric
permutation permutations | combination combinations
correlation | covariance
absolute | relative
discrete | continuous
interior | exterior
clockwise | counterclockwise anticlockwise
arrivals | departures
principal | interest
premium | deductible
checking current | savings
inflation | deflation
oral | topical
over-the-counter | prescription
inpatient | outpatient
wired corded | wireless cordless
refurbished used | new
early beginning | end
because | despite although
desktop | mobile
frontend | backend
asynchronously | synchronously
shallow | deep
inner | outer
"""
