"""What the log and the repositories say together: lost, unknown, failed, gaps, recovery. Nothing is asked or run here."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drill.journal import ACKNOWLEDGED, FAILED, REFUSED, UNKNOWN, Push, Story
from drill.proof import Found

Interval = tuple[float, float, bool]


def is_there(push: Push, commits: Mapping[str, str]) -> bool:
    """Tell whether a push's commit is in a repository; a web edit's id is known to the server alone."""
    return push.commit in commits if push.commit else push.word in commits.values()


def lost(pushes: Iterable[Push], found: Sequence[Found]) -> list[str]:
    """Return a sentence for each acknowledged push that some place has not; what could not be read proves nothing."""
    sentences = []
    for push in pushes:
        places = [one.place for one in found if one.repository == push.repository and one.commits is not None and not is_there(push, one.commits)]
        if push.result == ACKNOWLEDGED and places:
            commit = push.commit or push.word
            sentences.append(f"push {push.number}, {commit} to {push.repository} through {push.through}, is not at {', '.join(places)}")
    return sentences


def gap(intervals: Sequence[Interval]) -> float | None:
    """Return the longest time without a success, from the first beginning to the last end."""
    if not intervals:
        return None
    ends = sorted(end for _, end, well in intervals if well)
    moments = [min(begin for begin, _, _ in intervals), *ends, max(end for _, end, _ in intervals)]
    return max(after - before for before, after in itertools.pairwise(moments))


def recovery(intervals: Sequence[Interval], mark: float, until: float) -> float | None:
    """Return how long after a fault work that began after it succeeds and no later work fails any more; nothing if never."""
    after = [one for one in intervals if mark <= one[1] and one[0] < until]
    # What had not ended when the next fault began may have failed by that.
    last_failure = max((end for _, end, well in after if not well and end < until), default=mark)
    return min((end - mark for begin, end, well in after if well and begin >= mark and end >= last_failure), default=None)


def next_success(intervals: Sequence[Interval], mark: float) -> float | None:
    """Return how long after a fault something that began after it succeeds first."""
    return min((end - mark for begin, end, well in intervals if well and begin >= mark), default=None)


def judge_round(results: Sequence[str], present: Sequence[bool], missing: Sequence[str], tips: Sequence[str]) -> tuple[bool, list[str]]:
    """Judge two pushes at the same moment: whether it was decided, and each fault.

    results: what the pushers were told; present: whether each commit is in the history afterwards; missing: what had been
    acknowledged before and is not in it; tips: the newest commit as each place sees it.
    """
    faults = [f"{commit} was acknowledged in an earlier round and is no longer in the history" for commit in missing]
    decided = all(result in (ACKNOWLEDGED, REFUSED) for result in results)
    winners = results.count(ACKNOWLEDGED)
    if winners > 1:
        faults.append("both pushes were acknowledged")
    if decided and winners == 0:
        faults.append("both pushes were refused")
    for result, there in zip(results, present, strict=True):
        if result == ACKNOWLEDGED and not there:
            faults.append("an acknowledged push is not in the history")
        if result == REFUSED and there:
            faults.append("a refused push is in the history")
    if len(set(tips)) > 1:
        faults.append(f"the places do not agree on the newest commit: {', '.join(tips)}")
    return decided, faults


def by_way(story: Story) -> dict[str, dict[str, int]]:
    """Count the rounds of each way: decided, undecided, with a fault, and who won."""
    ways: dict[str, Counter[str]] = {}
    for record in story.rounds:
        count = ways.setdefault(record["way"], Counter(rounds=0, decided=0, faults=0))
        count["rounds"] += 1
        count["decided"] += record["decided"]
        count["faults"] += bool(record["faults"])
        for side, result in zip(record["way"].split("/"), record["results"], strict=True):
            count[f"won by {side}"] += result == ACKNOWLEDGED
    return {way: dict(count) for way, count in ways.items()}


def intervals_of(story: Story) -> dict[str, list[Interval]]:
    """Return pushes, with the questions before them, and pages as intervals."""
    pushes = [(push.begun, push.ended, push.result == ACKNOWLEDGED) for push in story.pushes.values() if push.ended]
    return {"push": pushes + story.pulls, "page": story.pages}


def reason_of(push: Push) -> str:
    """Return why a push was not acknowledged, without what differs from push to push."""
    return re.sub(r"[a-z]+://\S+|\b[0-9a-f]{12,40}\b", "…", push.reason.replace(push.repository, "…"))[:200]


def round_faults(story: Story) -> list[str]:
    """Return what was wrong in which round, and on which kind of repository."""
    return [
        f"{record['way']}, round {record['round']} of {story.repositories[record['repository']]}: {fault}"
        for record in story.rounds
        for fault in record["faults"]
    ]


def rounded(value: float | None) -> float | None:
    """Round for people."""
    return None if value is None else round(value, 2)


def summary(story: Story, found: Sequence[Found]) -> dict[str, Any]:
    """Return the whole report."""
    pushes = list(story.pushes.values())
    count = Counter(push.result for push in pushes)
    intervals = intervals_of(story)
    ends = [at for at, _ in story.marks[1:]] + [float("inf")]
    unknown = [push for push in pushes if push.result == UNKNOWN]
    there = sum(any(is_there(push, one.commits or {}) for one in found if one.repository == push.repository) for push in unknown)
    seconds = {kind: [end - begin for begin, end, well in kind_intervals if well] for kind, kind_intervals in intervals.items()}
    return {
        "mode": story.mode,
        "places": list(dict.fromkeys(one.place for one in found)),
        "repositories": len(story.repositories),
        "acknowledged": count[ACKNOWLEDGED],
        "lost": lost(pushes, found),
        "unknown": len(unknown),
        "unknown_there": there,
        "refused": count[REFUSED],
        "failed": count[FAILED],
        "damage": [one.damage for one in found if one.damage],
        "faults": [*story.faults, *round_faults(story)],
        "races": by_way(story),
        "questions_failed": len(story.pulls),
        "pages": sum(well for _, _, well in story.pages),
        "pages_failed": sum(not well for _, _, well in story.pages),
        "longest_gap": {kind: rounded(gap(kind_intervals)) for kind, kind_intervals in intervals.items()},
        "median_seconds": {kind: rounded(statistics.median(values) if values else None) for kind, values in seconds.items()},
        "recovery": [
            {
                "mark": text,
                **{kind: rounded(recovery(kind_intervals, at, until)) for kind, kind_intervals in intervals.items()},
                "next": {kind: rounded(next_success(kind_intervals, at)) for kind, kind_intervals in intervals.items()},
            }
            for (at, text), until in zip(story.marks, ends, strict=False)
        ],
        "reasons": dict(Counter(f"{push.result}: {reason_of(push)}" for push in pushes if push.result != ACKNOWLEDGED).most_common(10)),
    }


def is_bad(report: dict[str, Any]) -> bool:
    """Tell whether something that must not happen did."""
    return bool(report["lost"] or report["damage"] or report["faults"])


def _time(value: float | None) -> str:
    return "never, until the drill ended" if value is None else f"{value:.1f} s"


def as_text(report: dict[str, Any]) -> str:
    """Write the report for people."""
    lines = [
        f"{report['mode']}: {report['repositories']} repositories, looked at through {', '.join(report['places'])}",
        f"acknowledged {report['acknowledged']}, lost {len(report['lost'])}, unknown {report['unknown']} ({report['unknown_there']} of them are there),"
        f" refused {report['refused']}, failed {report['failed']}",
        f"pages {report['pages']}, failed {report['pages_failed']}; questions of git and hg that failed {report['questions_failed']}",
    ]
    for kind, value in report["longest_gap"].items():
        if value is not None:
            lines.append(f"{kind}: longest time without a success {_time(value)}, median {_time(report['median_seconds'][kind])}")
    for mark in report["recovery"]:
        lines.append(f"after {mark['mark']}: pushes back after {_time(mark['push'])}, pages after {_time(mark['page'])}")
    for way, count in report["races"].items():
        lines.append(f"{way}: " + ", ".join(f"{what} {number}" for what, number in count.items()))
    for title in ("lost", "damage", "faults"):
        lines += [f"{title.upper()}: {sentence}" for sentence in report[title]]
    lines += [f"{number} x {reason}" for reason, number in report["reasons"].items()]
    return "\n".join(lines)
