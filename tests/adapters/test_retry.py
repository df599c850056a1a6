"""``_retry``: requests that are split, halved and repeated."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gte_integrations._retry import (
    PERMANENT,
    TOO_LARGE,
    TRANSIENT,
    Failure,
    Sender,
    classify_http,
    seconds_of,
    split,
)


class Away(Exception):
    pass


class TooMuch(Exception):
    pass


def classify(error):
    return {Away: TRANSIENT, TooMuch: TOO_LARGE}.get(type(error), PERMANENT)


class Timeline:
    """A clock that moves by the pauses that are made."""

    def __init__(self):
        self.pauses = []

    def sender(self, classify=classify, seconds=120.0):
        return Sender(classify, seconds, clock=lambda: sum(self.pauses))


@pytest.fixture
def timeline(monkeypatch):
    timeline = Timeline()
    monkeypatch.setattr(threading.Event, "wait", lambda _, pause: timeline.pauses.append(pause))
    return timeline


@pytest.fixture
def sender(timeline):
    return timeline.sender()


def failing(times, error=Away):
    failures = iter([error("gone")] * times)

    def request():
        for failure in failures:
            raise failure
        return "done"

    return request


def test_a_request_is_repeated_until_it_arrives(sender, timeline):
    assert sender.retry(failing(5)) == "done"
    assert sender.retries == len(timeline.pauses) == 5


def test_pauses_double_up_to_a_limit_with_jitter(sender, timeline):
    sender.retry(failing(10))
    for pause, longest in zip(timeline.pauses, [0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5], strict=True):
        assert longest / 2 <= pause <= longest
    assert len(set(timeline.pauses)) == 10


def test_the_servers_own_pause_is_kept(timeline):
    sender = timeline.sender(lambda _: Failure("transient", retry_after=33.0))
    sender.retry(failing(2))
    assert timeline.pauses == [33.0, 33.0]


def test_it_gives_up_at_the_deadline_and_says_so(sender, timeline):
    with pytest.raises(Away, match="gone") as caught:
        sender.retry(failing(1000))
    assert sum(timeline.pauses) <= 120
    [note] = caught.value.__notes__
    assert note.startswith(f"Gave up after {len(timeline.pauses) + 1} attempts in ")
    assert note.endswith("retry_seconds is 120.")


def test_the_last_attempt_is_made_when_the_time_is_over(sender, timeline):
    with pytest.raises(Away, match="gone"):
        sender.retry(failing(1000))
    assert sum(timeline.pauses) == 120


def test_a_server_that_asks_for_more_time_than_there_is_is_not_asked_again(timeline):
    sender = timeline.sender(lambda _: Failure("transient", retry_after=121.0))
    with pytest.raises(Away, match="gone"):
        sender.retry(failing(1000))
    assert timeline.pauses == []


def test_every_request_has_the_whole_time(sender, timeline):
    for _ in range(5):
        sender.retry(failing(20))  # each about 80 seconds
    assert sum(timeline.pauses) > 240


def test_zero_seconds_is_never(timeline):
    sender = timeline.sender(seconds=0.0)
    with pytest.raises(Away, match="gone"):
        sender.retry(failing(1))
    assert sender.retries == 0


@pytest.mark.parametrize("error", [ValueError, TooMuch])
def test_what_cannot_pass_is_not_repeated(sender, timeline, error):
    with pytest.raises(error, match="gone"):
        sender.retry(failing(1, error))
    assert timeline.pauses == []


def test_every_repetition_is_logged(sender, timeline, caplog):
    sender.retry(failing(2))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.messages[1].startswith("Attempt 2 failed; next in ")


def test_stop_ends_a_pause_in_another_thread():
    sender = Sender(classify, 1000.0)
    asked = threading.Event()
    errors = []

    def request():
        asked.set()
        raise Away

    def run():
        try:
            sender.retry(request)
        except Away as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert asked.wait(timeout=60)
    sender.stop()
    thread.join(timeout=60)
    assert len(errors) == 1


@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
def test_what_is_too_large_is_halved_and_keeps_its_order(sender, timeline, most):
    written = []

    def write(items):
        if len(items) > most:
            raise TooMuch
        written.extend(items)

    sender.send(list(range(37)), write, str)
    assert written == list(range(37))
    assert timeline.pauses == []


def test_one_item_that_is_too_large_is_an_error(sender):
    with pytest.raises(TooMuch, match="gone") as caught:
        sender.send([1, 2], lambda _: failing(1, TooMuch)(), "number {}".format)
    assert caught.value.__notes__ == ["Too large for the server by itself: number 1."]


def test_split_goes_by_bytes():
    sizes = [4, 4, 4, 20, 1, 1]
    assert list(split(sizes, int, 9)) == [[4, 4], [4], [20], [1, 1]]
    assert list(split([], int, 9)) == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        ("soon", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_and_nonsense_is_none(header, seconds):
    assert seconds_of(header) == seconds


def test_a_date_to_come_is_waited_for():
    moment = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < seconds_of(format_datetime(moment, usegmt=True)) <= 60


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, PERMANENT), (404, PERMANENT), (408, Failure("transient", 3)), (413, TOO_LARGE)]
    + [(status, Failure("transient", 3)) for status in (429, 500, 502, 503)],
)
def test_a_status_says_what_to_do(status, expected):
    assert classify_http(status, b"", "3") == expected
