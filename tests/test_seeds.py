"""Streams of random numbers: named once, and the numbers that they have always given."""

import numpy as np

from m1pipe import seeds


def test_a_stream_is_numpys_generator_of_seed_and_number() -> None:
    wanted = np.random.default_rng([7, 23, 1]).random(4)
    np.testing.assert_array_equal(seeds.rng(7, seeds.GENERATED_LATENTS, 1).random(4), wanted)


def test_a_derived_seed_is_numpys_first_word() -> None:
    for keys in ((3, 0, 1), (2**63 - 1, 5)):
        assert seeds.derived(*keys) == np.random.SeedSequence(list(keys)).generate_state(1)[0]


def test_networks_of_a_head_have_seeds_of_their_own() -> None:
    assert [seeds.of_network(5, number) for number in range(3)] == [5, 1_000_008, 2_000_011]
