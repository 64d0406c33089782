"""What each token stands for, read off the vocabulary."""

from __future__ import annotations

from tokenizers import Tokenizer


def special_ids(tokenizer: Tokenizer) -> list[int]:
    """Of tokens that stand for no text: <|endoftext|>, <|pad|>, and the markers of a chat template where it knows some."""
    return sorted(tokenizer.get_added_tokens_decoder())


def token_contents(tokenizer: Tokenizer) -> list[bytes]:
    """Bytes that each token stands for; special tokens stand for none. In a byte-level vocabulary each character is one byte."""
    byte_of = {character: byte for byte, character in _byte_characters()}
    special = set(special_ids(tokenizer))
    contents = [b""] * tokenizer.get_vocab_size()
    for token, number in tokenizer.get_vocab().items():
        if number not in special:
            contents[number] = bytes(byte_of[character] for character in token)
    return contents


def _byte_characters() -> list[tuple[int, str]]:
    """(byte, the character that stands for it), as GPT-2 has it: printable bytes stand for themselves, the rest for U+0100 and on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [(byte, chr(byte)) for byte in plain] + [(byte, chr(0x100 + i)) for i, byte in enumerate(rest)]
