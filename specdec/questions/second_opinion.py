"""stub"""


def is_same(given: str, reference: str) -> bool:
    return False
