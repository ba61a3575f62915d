"""Words in messages."""


def numbered(count: int, noun: str) -> str:
    """A number of things in words: '1 image', '1,200 images'.

    Args:
        count (int): How many there are.
        noun (str): What one of them is called; its plural has an s at the end.
    """
    return f'{count:,} {noun}' if count == 1 else f'{count:,} {noun}s'
