"""Groups of images that are one photo: known labels that are opposite, and subsets that share a photo."""

import numpy as np

from mlcls.labels.duplicates import find_conflicts, find_leaks


def test_a_conflict_is_two_known_labels_that_are_opposite() -> None:
    unknown = np.nan
    labels = np.array(
        [[1, 0], [1, unknown], [0, 0], [unknown, 1], [unknown, unknown], [1, 1]], dtype=np.float32
    )
    assert find_conflicts(labels, ((0, 1), (1, 3), (3, 4, 5))) == ()
    assert find_conflicts(labels, ((0, 2), (0, 3), (1, 4, 2))) == ((0, 2), (0, 3), (1, 4, 2))
    assert find_conflicts(labels, ()) == ()


def test_a_leak_is_a_group_with_rows_in_several_subsets():
    train, val, test = np.array([0, 1, 2, 9]), np.array([3, 4]), np.array([], dtype=np.intp)
    groups = ((0, 1), (2, 3), (5, 6), (4, 5, 12), (3, 9, 5))  # 5, 6 and 12 are in no subset
    assert find_leaks(groups, [train, val, test]) == ((2, 3), (3, 9, 5))
    assert find_leaks((), [train, val, test]) == ()
    assert find_leaks(((0, 1),), []) == ()
