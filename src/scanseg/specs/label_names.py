"""Names of labels, of which every data set has its own spelling."""

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
"""Words of a name, in alphabetical order, to those of its other names."""

_CANONICAL = {other: name for name, others in _SYNONYMS.items() for other in others}


def canonical_label(name: str) -> str:
    """Return what equal names have in common, however they are written.

    Case, the order of words, and hyphens or underscores between them make no difference; some organs have several
    names (`RAG`, `right adrenal gland`). The result is for comparison, not for people.

    Args:
        name: Name of a label.
    """
    words = " ".join(sorted(name.lower().replace("_", " ").replace("-", " ").split()))
    return _CANONICAL.get(words, words)
