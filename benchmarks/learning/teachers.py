"""What teaches the server's students in a round: the fleet's votes, votes on stale samples only, or its class means.

Owns how a round is asked; the rules are the product's. Each function takes a fleet and settings, and returns what makes
a round's lesson out of the students so far and the round's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec
import numpy as np

from benchmarks.learning import class_means
from benchmarks.learning.answers import Answers, there
from benchmarks.learning.fleet import SPEC
from broker_server.distil_job import DistilSettings
from broker_server.distiller import inputs_of, shared_opinion, teacher_lesson
from broker_server.proxy_set import drawn
from broker_server.strategies import PROTOTYPE_RULES, HiddenAnchors, make_strategy
from broker_server.strategies.label_cache import LabelCache
from broker_server.strategies.prototype_teacher import PrototypeTeacher
from broker_server.training import Lesson
from edge_models.students import Student
from edge_protocol.task import Tier

Teach = Callable[[Mapping[Tier, Student], int], Lesson]
PART, LIFETIME = 0.5, 5
"""Of `stale`: share of the proxies that a round teaches from, and rounds for which a fused label is used again."""
_DRAW = 0x5CA7


def told(answers: Answers, plan: DistilSettings) -> Teach:
    """Devices are asked about all proxies, with anchors hidden among them, in every round; the rule is the plan's.

    As in the product, a round counts a part of the hidden anchors, and teaches the others as proxies. Rules for class
    means ask for no answer: devices tell their means, and the same samples are taught from.
    """
    world = answers.world
    asked = world.asked
    x = inputs_of(asked.samples, SPEC)
    kind = PROTOTYPE_RULES.get(plan.strategy)

    def teach(students: Mapping[Tier, Student], number: int) -> Lesson:
        shared = shared_opinion(students.values(), x, SPEC)
        counted = drawn(asked, share=plan.trust_drawn, salt=bytes([answers.seed]), number=number)
        anchors = HiddenAnchors(counted.hidden, asked.samples.targets[counted.hidden])
        if kind is not None:
            spaces = class_means.spaces(students, x, world.anchors)
            means = PrototypeTeacher(kind, SPEC, number, spaces, shared, plan, anchors)
            places = there(len(world.devices), answers.setting, answers.seed, number)
            answers.bytes_up.extend(class_means.heard(world, students, number, means, places))
            teacher = means.teacher()
        else:
            strategy = make_strategy(plan, shared, anchors)
            if plan.strategy != "self":
                answers.collect(students, x, number, strategy)
            teacher = strategy.teacher()
        rows = counted.proxies
        return teacher_lesson(x[rows], teacher.take(rows), temperature=plan.temperature, batch=plan.batch)

    return teach


def stale(answers: Answers, plan: DistilSettings, *, lifetime: int = LIFETIME) -> Teach:
    """A round teaches from a part of the proxies, and asks only for those whose label is old (SCARLET).

    What is asked changes from round to round, so reports travel without a base, and who is away counts by the labels it
    left in the cache.
    """
    x = inputs_of(answers.world.proxies, SPEC)
    cache: LabelCache | None = None

    def teach(students: Mapping[Tier, Student], number: int) -> Lesson:
        nonlocal cache
        shared = shared_opinion(students.values(), x, SPEC)
        cache = cache or LabelCache.empty(shared, lifetime)
        order = np.random.default_rng([answers.seed, number, _DRAW]).permutation(len(x))
        chosen = np.sort(order[: round(PART * len(x))])
        rows = cache.to_ask(number, chosen)
        if len(rows):
            strategy = make_strategy(plan, shared.take(rows))
            replace(answers, last={}).collect(students, x, number, strategy, rows)
            cache = cache.with_fused(rows, strategy.teacher(), number)
        return teacher_lesson(x[chosen], cache.teacher.take(chosen), temperature=plan.temperature, batch=plan.batch)

    return teach


def teaching(strategy: str, answers: Answers, plan: DistilSettings) -> Teach:
    """The course of a method that is named by its strategy, or is ``scarlet``: DS-FL's rule with the cache."""
    if strategy == "scarlet":
        return stale(answers, msgspec.structs.replace(plan, strategy="dsfl"))
    return told(answers, plan)
