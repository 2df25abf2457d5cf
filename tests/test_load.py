"""A server under load: one request costs what pricing says, every token comes once, and steps are those of a server."""

from __future__ import annotations

import numpy as np
import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_record, make_round

from specdec.errors import UserError
from specdec.latency import load
from specdec.latency.batch_costs import BatchCosts
from specdec.latency.load import draft_ms, serve
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile, load_profile
from specdec.latency.rows import Rows, RowTables
from specdec.latency.serving import Plan, Recorded, Served
from specdec.ranking.requests import NEVER, requests_of, without_loops
from specdec.records.record import Record

AR, DLLM = "ar_None_sf_3", "dllm_0.05_sf_4"
ONE_MS, MORE_MS = 10.0, 1.0  # of a target's pass over a token, and of each more


def profile(contexts: tuple[int, ...] = (0, 100), context_ms: float = 0.0) -> LatencyProfile:
    """A pass takes 10 ms, and 1 more for every token beyond the first, of all requests. A drafter's takes 2 ms, and
    half a ms for every request more. In both, a token of a request's context takes `context_ms`."""
    verify = [
        [[ONE_MS + MORE_MS * (r * k - 1) + context_ms * r * x for x in contexts] for k in (1, 10)] for r in (1, 2, 40)
    ]
    passes = [[[2.0 + 0.5 * (r - 1) + context_ms * r * x for x in contexts]] for r in (1, 40)]
    frozen = [tuple(tuple(map(tuple, table)) for table in one) for one in (verify, passes)]
    rows = RowTables(
        0, {"t": Rows((1, 2, 40), (1, 10), contexts, frozen[0])}, {"ar": Rows((1, 40), (1,), contexts, frozen[1])}
    )
    return LatencyProfile("p", 2.0, {"t": 10.0}, {"t": {1: 10.0, 10: 19.0}}, {}, ar_draft_pass_ms=2.0, rows=rows)


def costs(most: int, context_ms: float = 0.0) -> BatchCosts:
    return BatchCosts.of(profile(context_ms=context_ms), "t", ("ar",), most)


def recorded(rounds: list[list[tuple[int, int, int, int]]], num_servers: int = 1, **more: np.ndarray) -> Recorded:
    """One drafter's rounds (passes, drafted, accepted, emitted) by question."""
    flat = np.array([turn for question in rounds for turn in question]).T
    ends = np.cumsum([len(question) for question in rounds])
    begins = ends - [len(question) for question in rounds]
    which = np.zeros(num_servers, int)
    limit = more.get("off_above", np.full(num_servers, NEVER))
    beside_ms = more.get("beside_ms", np.zeros(len(flat[0])))
    return Recorded(*flat, beside_ms, begins[None], ends[None], which, which, limit)


def test_passes_of_a_step_are_shared_by_those_that_want_them():
    pass_ms = np.array([[0.0, 3.0, 4.0, 5.0]])
    assert draft_ms(np.array([[2, 1, 0]]), pass_ms).tolist() == [4 + 3]
    assert draft_ms(np.array([[2, 2, 5]]), pass_ms).tolist() == [2 * 5 + 3 * 3]
    assert draft_ms(np.array([[0, 0, 0]]), pass_ms).tolist() == [0]


def test_two_requests_by_hand():
    """Prompts of 4 and 2 tokens, read 5 a step: the first wholly, of the second one, then the other one."""
    rounds = [[(2, 2, 2, 3), (1, 1, 0, 1)], [(0, 0, 0, 1), (3, 3, 1, 2)]]
    plan = Plan(2, 2, np.array([[0, 1]]), np.zeros(1, int), np.array([4, 2]), arrivals_BN=np.zeros((1, 2)), chunk=5)
    served = serve(plan, recorded(rounds), costs(2))
    read = 10 + 4.0  # 5 tokens
    first = read + (
        2 * 2 + 10 + 3
    )  # two passes for one request; a draft of 2, its next token, and the last prompt token
    second = first + (2 + 10 + 2)  # of request 0: a pass, 2 tokens; of request 1: one token
    third = second + (3 * 2 + 10 + 3)
    assert served.read_BN.tolist() == [[read, first]]
    assert served.first_BN.tolist() == [[first, second]]
    assert served.finished_BN.tolist() == [[second, third]] and served.time_ms_B.tolist() == [third]
    assert served.emitted_BN.tolist() == [[4, 3]]
    assert (served.tokens_B, served.accepted_B, served.drafted_B) == (7, 3, 6)


def test_nobody_is_served_before_it_comes_and_an_idle_server_waits():
    rounds = [[(0, 0, 0, 1)] * 3]
    plan = Plan(1, 3, np.array([[0]]), np.zeros(1, int), np.array([1]), arrivals_BN=np.array([[5.0, 7.0, 1000.0]]))
    served = serve(plan, recorded(rounds), costs(1))
    assert served.read_BN.tolist() == [[15, 55, 1010]] and served.finished_BN.tolist() == [[45, 85, 1040]]
    assert served.arrived_BN.tolist() == [[5, 7, 1000]]


def test_above_its_limit_a_request_that_enters_goes_without_drafts():
    turns = np.array([(1, 1, 1, 2), (0, 0, 0, 1), (0, 0, 0, 1)]).T
    begins, ends = np.array([[1], [0]]), np.array([[3], [1]])  # plain decoding, then the drafter
    policy = Recorded(*turns, np.zeros(3), begins, ends, np.ones(3, int), np.zeros(3, int), np.array([0, 1, 2]))
    plan = Plan(2, 2, np.zeros((3, 1), int), np.zeros(3, int), np.array([1]), arrivals_BN=np.array([[0.0, 1.0]] * 3))
    assert serve(plan, policy, costs(2)).drafted_B.tolist() == [0, 1, 2]


# ---- every token of every request comes once ------------------------------------------------------------------------


def served_at_random(seed: int, num_servers: int) -> tuple[Served, np.ndarray, Plan]:
    """Servers of random schedules over random rounds; how many tokens each question has."""
    rng = np.random.default_rng(seed)
    num_questions, places = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    rounds = []
    for _ in range(num_questions):
        drafted = rng.integers(0, 5, size=rng.integers(1, 6))
        accepted = rng.integers(0, drafted + 1)
        rounds.append([(int(d), int(d), int(a), int(a) + 1) for d, a in zip(drafted, accepted, strict=True)])
    num_measured = int(rng.integers(1, 9))
    picks = rng.integers(num_questions, size=(num_servers, 7))
    comes = rng.exponential(size=(num_servers, num_measured)).cumsum(1) * rng.choice([0.1, 30.0])
    is_open = bool(rng.integers(2))
    plan = Plan(
        places,
        num_measured,
        picks,
        np.zeros(num_servers, int),
        rng.integers(1, 9, size=num_questions),
        arrivals_BN=comes if is_open else None,
        under_way_BC=None if is_open else rng.random((num_servers, places)),
        chunk=int(rng.integers(1, 12)),
    )
    lens = np.array([sum(turn[3] for turn in question) for question in rounds])
    return serve(plan, recorded(rounds, num_servers), costs(places)), lens, plan


@pytest.mark.parametrize("seed", range(20))
def test_every_token_of_every_request_comes_once_in_10000_schedules(seed):
    served, lens, plan = served_at_random(seed, 500)
    asked = plan.picks_BL[:, np.arange(plan.num_measured) % plan.picks_BL.shape[1]]
    assert np.array_equal(served.emitted_BN, lens[asked])
    assert np.all(served.arrived_BN <= served.read_BN) and np.all(served.read_BN < served.first_BN)
    assert np.all(served.first_BN <= served.finished_BN)
    assert np.all(served.time_ms_B == served.finished_BN.max(1))
    # all that was given, but for what requests under way gave besides
    assert np.all(served.tokens_B >= served.emitted_BN.sum(1))
    if plan.arrivals_BN is not None:
        assert np.array_equal(served.tokens_B, served.emitted_BN.sum(1))
    assert np.all(served.accepted_B <= served.drafted_B)


def test_the_same_seed_gives_the_same_and_servers_do_not_see_each_other():
    (one, _, plan), (again, _, _) = served_at_random(3, 40), served_at_random(3, 40)
    assert all(np.array_equal(getattr(one, name), getattr(again, name), equal_nan=True) for name in vars(one))
    alone = [served_at_random(3, 40)[0].time_ms_B[at] for at in (0, 39)]
    assert alone == [one.time_ms_B[0], one.time_ms_B[39]] and len(plan.picks_BL) == 40


@pytest.mark.parametrize("context", [None, 37])
def test_requests_that_never_meet_are_served_as_step_by_step(context):
    """One at a time they are laid end to end: the same to 1e-9, in another order of sums."""
    rng = np.random.default_rng(5)
    rounds = [
        [(int(p), int(d), int(d), int(d) + 1) for p, d in rng.integers(0, 5, size=(rng.integers(1, 6), 2))]
        for _ in range(4)
    ]
    picks, lens = rng.integers(4, size=(30, 7)), rng.integers(1, 9, size=4)
    plan = Plan(
        1, 9, picks, np.zeros(30, int), lens, under_way_BC=rng.random((30, 1)), chunk=int(rng.integers(3, 6)),
        context=context,
    )  # fmt: skip
    policy, own = recorded(rounds, 30), BatchCosts.of(load_profile("H100_bound"), "Qwen3-8B", ("ar",), 1)
    at_once, by_step = serve(plan, policy, own), load._served(plan, policy, own)
    for name, theirs in vars(by_step).items():
        assert getattr(at_once, name) == pytest.approx(theirs, rel=1e-9, abs=0), name


# ---- one request at a time: the pricing of one ----------------------------------------------------------------------


@st.composite
def some_records(draw: st.DrawFn) -> list[Record]:
    """Three questions under two drafters."""
    made = []
    for number in range(3):
        for name in (AR, DLLM):
            rounds, place = [], 3
            for _ in range(draw(st.integers(1, 6))):
                drafted = draw(st.integers(0, 20))
                accepted = draw(st.integers(0, drafted))
                passes = draw(st.integers(0, 9))
                rounds.append(make_round(place, tuple(range(5, 5 + drafted)), accepted, num_denoise_passes=passes))
                place += accepted + 1
            made.append(make_record(number, name, rounds))
    return made


def alone(
    records: list[Record], own: LatencyProfile, entry: str, context: int | None
) -> tuple[list[float], list[float]]:
    """Ms of decoding every record, by the simulator with one place and by pricing."""
    requests = requests_of(records)
    drafters = np.arange(len(requests.drafters))
    num = len(requests.questions)
    kinds = requests.kinds_of(drafters, requests.kinds)
    picks = np.tile(np.arange(num), (len(drafters), 1))
    plan = Plan(
        1, num, picks, kinds, requests.prompt_lens_Q, under_way_BC=np.zeros((len(drafters), 1)), context=context
    )
    served = serve(
        plan, requests.policy(drafters, requests.beside_ms(own, entry)), BatchCosts.of(own, entry, requests.kinds, 1)
    )
    ms_BN = served.finished_BN - served.read_BN
    keys = [(at, name, q) for at, name in enumerate(requests.drafters) for q in range(num) if at]
    expected = [price(requests.records[name, requests.questions[q]], own, entry).total_ms for _, name, q in keys]
    plain = [price(requests.records[AR, one], own, entry) for one in requests.questions]
    num_tokens = requests.output_lens_Q * own.target_ms_per_token[entry]
    assert ms_BN[0] == pytest.approx(num_tokens, rel=1e-9)
    assert plain[0].baseline_ms == pytest.approx(num_tokens[0], rel=1e-9)
    return [float(ms_BN[at, q]) for at, _, q in keys], expected


@many(20)
@given(some_records(), st.sampled_from(["H100_bound", "RTX_A6000_bound"]), st.sampled_from(["Qwen3-8B", "Qwen3-14B"]))
def test_one_request_at_a_time_takes_what_pricing_says(records, name, entry):
    ours, theirs = alone(records, load_profile(name), entry, 512)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=0)


def test_contexts_cost_what_their_keys_and_values_take():
    own, entry = load_profile("H200_bound"), "Qwen2.5-32B-Instruct"
    found = BatchCosts.of(own, entry, ("ar",), 64)
    one, many = (found.verify_ms(np.array([n]), np.array([1.0]), np.array([4096.0]))[0] for n in (1, 64))
    kv_ms = 1e3 * 4096 * 2 * 64 * 2 * 8 * 128 / 4.8e12
    assert many - one == pytest.approx(63 * kv_ms, rel=1e-2)
    assert found.verify_ms(np.array([0]), np.array([0.0]), np.array([0.0])) == [0]


def test_what_pricing_says_of_one_request_holds_also_where_rows_were_measured_otherwise():
    """The rows say how costs grow, the prices of one request what they grow from."""
    halved = profile()
    fields = vars(halved) | {"verify_ms": {"t": {1: 5.0, 10: 9.5}}, "target_ms_per_token": {"t": 5.0}}
    found = BatchCosts.of(LatencyProfile(**fields), "t", (), 40)
    assert found.verify_ms(np.array([1, 40]), np.array([10.0, 1.0]), np.zeros(2)).tolist() == [9.5, 24.5]
    beyond = found.verify_ms(np.array([1]), np.array([19.0]), np.array([1e6]))
    assert beyond == pytest.approx([14.0])  # the last slope goes on


# ---- what cannot be served ------------------------------------------------------------------------------------------


def test_what_a_profile_must_have_is_one_line():
    for own, kinds, why in (
        (load_profile("vLLM_A6000"), (), "vLLM_A6000 does not say what passes of batches cost"),
        (profile(), ("eagle3",), "what a pass of eagle3 over several requests costs"),
    ):
        entry = next(iter(own.target_ms_per_token))
        with pytest.raises(UserError, match=why):
            BatchCosts.of(own, entry, kinds, 2)


def test_what_cannot_be_simulated_together_is_one_line():
    other = make_record(0, AR)
    strange = make_record(0, AR, identity=other.identity.of_drafter(AR, {"seed": 0}, "live"))
    object.__setattr__(strange.identity, "target", "another")
    for records, why in (
        ([other, strange], "records of several targets"),
        ([make_record(0, "plain", [make_round(3, (), 0)])], "plain decoding alone"),
        ([make_record(0, AR, [])], "an empty answer"),
        ([make_record(0, AR), make_record(1, AR), make_record(0, DLLM)], "run on different questions"),
    ):
        with pytest.raises(UserError, match=why):
            requests_of(records)
    policy = {"policy": {"has_seen": True}}
    with pytest.raises(UserError, match="a policy has learnt from question 0"):
        requests_of([make_record(0, AR, provenance=policy)])
    assert requests_of([make_record(0, AR, provenance=policy)], allow_seen=True).drafters == ("plain", AR)
    loop = make_record(2, AR, [make_round(3 + 4 * at, (5, 5, 5), 3, next_token=5) for at in range(30)])
    assert [one.question_id for one in without_loops([make_record(0, AR), loop, make_record(2, DLLM)])] == [0]
    with pytest.raises(UserError, match="every answer is mostly one loop"):
        without_loops([loop])
    both = requests_of([make_record(0, AR), make_record(1, AR), make_record(0, DLLM)], allow_unequal=True)
    assert [number for _, number, _ in both.questions] == [0] and both.drafters == ("plain", AR, DLLM)


# ---- against a server written down request by request ---------------------------------------------------------------


def slow_server(
    rounds: list[list[tuple[int, int, int, int]]], plan: Plan, server: int, context_ms: float
) -> tuple[list[float], list[float], list[float]]:
    """When each request's prompt was read, its first and its last tokens came: one request after the other, by the
    prices that `profile` states in words; the mean context of a step is that of all that run in it."""
    asked = [int(plan.picks_BL[server, at % plan.picks_BL.shape[1]]) for at in range(plan.num_measured)]
    arrivals = [0.0] * len(asked) if plan.arrivals_BN is None else plan.arrivals_BN[server].tolist()
    clock, waiting = 0.0, list(range(len(asked)))
    running: dict[int, list] = {}  # of each what is unread, the rounds to come, the context
    read, first, last = ([0.0] * len(asked) for _ in range(3))
    while waiting or running:
        if not running and waiting and arrivals[waiting[0]] > clock:
            clock = arrivals[waiting[0]]
        while waiting and len(running) < plan.num_places and arrivals[waiting[0]] <= clock:
            one = waiting.pop(0)
            running[one] = [int(plan.prompt_lens_Q[asked[one]]), list(rounds[asked[one]]), 0]
        room, took = plan.chunk, {}
        decoding = [one for one, (unread, *_) in running.items() if not unread]
        for one in sorted(one for one in running if one not in decoding):
            if room:
                took[one] = min(room, running[one][0])
                room -= took[one]
        turns = {one: running[one][1].pop(0) for one in decoding}
        in_step = [*took, *turns]
        a_request_ms = context_ms * sum(running[one][2] for one in in_step) / len(in_step)
        wanted = [turn[0] for turn in turns.values()]
        for j in range(1, max(wanted, default=0) + 1):
            num = sum(want >= j for want in wanted)
            clock += 2 + 0.5 * (num - 1) + a_request_ms * num
        clock += a_request_ms * len(in_step)
        clock += 10 + sum(took.values()) + sum(turn[1] + 1 for turn in turns.values()) - 1
        for one, amount in took.items():
            running[one][0] -= amount
            running[one][2] += amount
            read[one] = clock if not running[one][0] else read[one]
        for one, turn in turns.items():
            running[one][2] += turn[3]
            first[one] = first[one] or clock
            if not running[one][1]:
                last[one] = clock
                del running[one]
    return read, first, last


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("context_ms", [0.0, 0.25])
def test_steps_are_those_of_a_server_written_down_request_by_request(seed, context_ms):
    rng = np.random.default_rng(seed)
    rounds = [
        [(int(p), int(d), int(d), int(d) + 1) for p, d in rng.integers(0, 5, size=(rng.integers(1, 5), 2))]
        for _ in range(rng.integers(1, 5))
    ]
    comes = rng.exponential(rng.choice([5.0, 60.0]), size=(3, 6)).cumsum(1)
    sizes = rng.integers(1, 6), rng.integers(len(rounds), size=(3, 5)), rng.integers(1, 9, size=len(rounds))
    plan = Plan(
        int(sizes[0]), 6, sizes[1], np.zeros(3, int), sizes[2], arrivals_BN=comes, chunk=int(rng.integers(1, 12))
    )
    served = serve(plan, recorded(rounds, 3), costs(int(sizes[0]), context_ms))
    for server in range(3):
        for ours, theirs in zip(
            (served.read_BN, served.first_BN, served.finished_BN),
            slow_server(rounds, plan, server, context_ms),
            strict=True,
        ):
            assert ours[server] == pytest.approx(theirs, rel=1e-9)
