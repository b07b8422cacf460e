"""Comparison of label names across spellings."""

_SYNONYMS = {
    "adrenal right": ("adrenal gland right", "rag"),
    "adrenal left": ("adrenal gland left", "lag"),
    "esophagus": ("oesophagus",),
    "gallbladder": ("bladder gall",),
    "interior": ("cell", "cell interior"),
    "myocardium": ("mlv", "myo"),
    "probe ultrasound": ("other", "drop in probe ultrasound"),
    "ivc": ("cava inferior vena", "postcava", "post cava"),
}
"""Canonical name to its synonyms. The words of every name are in alphabetical order."""

_CANONICAL = {other: name for name, others in _SYNONYMS.items() for other in others}


def canonical_label(name: str) -> str:
    """Return the canonical form of a label name.

    Case, word order, hyphens and underscores make no difference. Synonyms of organs have the same form (`RAG`,
    `right adrenal gland`). The form is for comparison, not for display.

    Args:
        name: Name of a label.
    """
    words = " ".join(sorted(name.lower().replace("_", " ").replace("-", " ").split()))
    return _CANONICAL.get(words, words)
