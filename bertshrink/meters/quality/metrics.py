"""What answers are worth against the right ones: pure functions, one per kind of answer.

entities   precision, recall and F1 over whole entities of tagged words, as conlleval and seqeval count them: an
           entity is right when its type, its first and its last word are. Tags that are not parts of entities, such as
           parts of speech, are entities of one word each
answers    exact match and F1 over words, as SQuAD's own script counts them (arXiv:1606.05250): case, punctuation,
           articles and spaces do not matter, and the best of several right answers counts
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first word, last word) of every entity; an I- without its B- begins one, as conlleval says."""
    spans: set[tuple[str, int, int]] = set()
    begun, kind = -1, ""
    for at, tag in enumerate([*tags, "O"]):
        part, name = _part(tag)
        continues = part in ("I", "E", "L") and begun >= 0 and name == kind
        if begun >= 0 and not continues:
            spans.add((kind, begun, at - 1))
            begun = -1
        if part != "O" and not continues:
            begun, kind = at, name
        if part in ("E", "L", "S", "U"):
            spans.add((kind, begun, at))
            begun = -1
    return spans


def _part(tag: str) -> tuple[str, str]:
    """(B, I, E, L, S, U or O, type) of a tag: IOB2, IOBES and BILOU; a tag of no scheme stands for one word."""
    part, _, name = tag.partition("-")
    if tag == "O" or (len(part) == 1 and part in "BIELSU" and name):
        return part, name
    return "S", tag


def entity_scores(tags: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """(precision, recall, F1) over the entities of all texts; 0 where there is nothing to divide by."""
    counts = zip(*entity_counts(tags, truth), (0, 0, 0), strict=True)
    right, num_predicted, num_true = map(sum, counts)
    precision, recall = right / max(1, num_predicted), right / max(1, num_true)
    return precision, recall, 2 * right / max(1, num_predicted + num_true)


def entity_counts(tags: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> list[tuple[int, int, int]]:
    """Of each text the numbers of correct, predicted and true entities."""
    pairs = [(entities(mine), entities(theirs)) for mine, theirs in zip(tags, truth, strict=True)]
    return [(len(mine & theirs), len(mine), len(theirs)) for mine, theirs in pairs]


def plain(text: str) -> str:
    """A text without case, punctuation, articles and superfluous spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def word_f1(answer: str, right: str) -> float:
    """F1 over the words that two answers share; two empty ones agree."""
    mine, theirs = plain(answer).split(), plain(right).split()
    if not mine or not theirs:
        return float(mine == theirs)
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs))


def answer_scores(answers: Sequence[str], truth: Sequence[Sequence[tuple[str, int]]]) -> tuple[list[bool], list[float]]:
    """(which answers match exactly, the F1 of each); one without a right answer wants none."""
    exact: list[bool] = []
    f1: list[float] = []
    for answer, right in zip(answers, truth, strict=True):
        texts = [text for text, _ in right if plain(text)] or [""]
        exact.append(any(plain(answer) == plain(text) for text in texts))
        f1.append(max(word_f1(answer, text) for text in texts))
    return exact, f1


def label_f1(chosen_NC: NDArray[np.bool_], truth_NC: NDArray[np.bool_]) -> tuple[float, float]:
    """(micro, macro) F1 of any number of labels a row: over all decisions, and the mean over the classes.

    Class by class, since scikit-learn reads a table of one column as two classes.
    """
    import numpy as np
    from sklearn.metrics import f1_score

    micro = float(f1_score(truth_NC.ravel(), chosen_NC.ravel(), zero_division=0))
    classes = [f1_score(right, mine, zero_division=0) for right, mine in zip(truth_NC.T, chosen_NC.T, strict=True)]
    return micro, float(np.mean(classes))


def pair_spearman(mine_NN: Floats, theirs_NN: Floats) -> float:
    """Rank correlation of the similarities of all pairs of texts."""
    import numpy as np

    if len(mine_NN) < 3:
        return 1.0 if np.allclose(mine_NN, theirs_NN) else 0.0
    upper = np.triu_indices(len(mine_NN), 1)
    return rank_correlation(mine_NN[upper], theirs_NN[upper])


def rank_correlation(a_N: Floats, b_N: Floats) -> float:
    """Spearman's rho; 0 where one side is constant, which ranks nothing."""
    import numpy as np
    from scipy.stats import spearmanr

    if np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return float(np.array_equal(a_N, b_N))
    return float(spearmanr(a_N, b_N).statistic)


def neighbour_recall(mine_NN: Floats, theirs_NN: Floats, num: int) -> Floats:
    """Of each text (N,) the share of the reference's `num` nearest texts that are among the model's `num` nearest.

    Args:
        mine_NN: how near each text is to each, by the model.
        theirs_NN: likewise by the reference.
    """
    import numpy as np

    num = min(num, len(mine_NN) - 1)
    if num < 1:
        return np.ones(len(mine_NN))
    nearest = []
    for table in (mine_NN, theirs_NN):
        similarities = table.copy()
        np.fill_diagonal(similarities, -np.inf)
        nearest.append(np.argpartition(-similarities, num - 1, axis=1)[:, :num])
    shared = [len(set(a) & set(b)) for a, b in zip(*(n.tolist() for n in nearest), strict=True)]
    return np.asarray(shared) / num


def term_overlap(answers: Floats, reference: Floats, num: int) -> Floats:
    """Of each row (N,) the share of the reference's `num` largest numbers, 0 left out, that are among the model's.

    A row of the reference with fewer than `num` numbers is compared at as many; two rows of zeros agree.
    """
    import numpy as np

    shares = np.ones(len(answers))
    for at, (mine, theirs) in enumerate(zip(answers, reference, strict=True)):
        most = min(num, int((theirs > 0).sum()))
        if most == 0:
            shares[at] = float(not (mine > 0).any())
            continue
        first, second = (set(np.argsort(-row, kind="stable")[:most].tolist()) for row in (mine, theirs))
        shares[at] = len({term for term in first if mine[term] > 0} & second) / most
    return shares


def likelihood(logits_NV: NDArray[Any], truth_N: NDArray[Any]) -> Floats:
    """The log-likelihood (N,) of each row's right token."""
    import numpy as np
    from scipy.special import log_softmax

    log_likelihood_N: Floats = log_softmax(logits_NV.astype(np.float64), axis=1)[np.arange(len(truth_N)), truth_N]
    return log_likelihood_N


def pseudo_perplexity(likelihood_N: Floats) -> float:
    """Exp of the mean negative log-likelihood of the masked tokens (arXiv:1910.14659, with all masks of a text at
    once).
    """
    import numpy as np

    return float(np.exp(-likelihood_N.mean()))
