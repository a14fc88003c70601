"""BERT's uncased WordPiece in plain Python, as transformers' slow BertTokenizer behaves (the peers' tests hold it against that one)."""

import unicodedata


def is_whitespace(c):
    return c in " \t\n\r" or unicodedata.category(c) == "Zs"


def is_control(c):
    return c not in "\t\n\r" and unicodedata.category(c).startswith("C")


def is_punctuation(c):
    return 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126 or unicodedata.category(c).startswith("P")


CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def is_cjk(c):
    return any(first <= ord(c) <= last for first, last in CJK)


def basic_words(text):
    text = "".join(c if c == "\n" else c.lower() for c in text)  # character by character: a final capital sigma becomes σ
    cleaned = []
    for c in text:
        if ord(c) in (0, 0xFFFD) or is_control(c):
            continue
        cleaned.append(" " if is_whitespace(c) else f" {c} " if is_cjk(c) else c)
    words = []
    for token in unicodedata.normalize("NFC", "".join(cleaned)).split():
        token = "".join(c for c in unicodedata.normalize("NFD", token.lower()) if unicodedata.category(c) != "Mn")
        word = ""
        for c in token:
            if is_punctuation(c):
                words += [word, c]
                word = ""
            else:
                word += c
        words.append(word)
    return " ".join(words).split()


def pieces_of(word, vocabulary):
    if len(word) > 100:
        return ["[UNK]"]
    pieces, begin = [], 0
    while begin < len(word):
        for end in range(len(word), begin, -1):
            piece = ("##" if begin else "") + word[begin:end]
            if piece in vocabulary:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        begin = end
    return pieces


def encode(text, vocabulary):
    return [vocabulary["[CLS]"], *(vocabulary[p] for word in basic_words(text) for p in pieces_of(word, vocabulary)), vocabulary["[SEP]"]]


def code_point_texts(at_once=32):
    """Every assigned code point of planes 0 and 1, alone and inside a word, some in one text."""
    points = [c for c in map(chr, range(0x20000)) if unicodedata.category(c) not in ("Cn", "Cs")]
    return [" ".join(f"{c} a{c}b" for c in points[i : i + at_once]) for i in range(0, len(points), at_once)]


def vocabulary_of_characters(texts):
    """Special tokens, then every character that the texts come down to, as a first and as a later piece."""
    characters = sorted({c for text in texts for word in basic_words(text) for c in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters)]
    return {piece: i for i, piece in enumerate(pieces)}
