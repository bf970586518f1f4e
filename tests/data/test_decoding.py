"""Encodings are proven: texts come back letter by letter, or the file is refused with what it looks like."""

# ruff: noqa: RUF001

import gzip

import pytest

from bertshrink.data.readers import _read_table as read_table
from bertshrink.data.readers import read_sides
from bertshrink.data.settings import DataSettings
from bertshrink.errors import UserError


def read(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    found = read_table(path, DataSettings())
    return {key: list(cells) for key, cells in found.columns.items()}, found.how, list(found.lines)


WORDS = {
    "de": "Der Drucker läuft nicht, bitte „prüfen“: 5 m², Größe XL, 20 € für Straßen.",
    "fr": "L'écran est cassé à cause d'un café renversé, « très » gênant, ça va où ?",
    "es": "¿Qué pasa? ¡Hola! El niño comió mañana en el 1º piso.",
    "pt": "A situação não está boa, as ações põem você à prova.",
    "sv": "Jag är på väg till höger ö.",
    "is": "Það er gott að þú ert hér í dag, mjög ánægð.",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "pl": "Zażółć gęślą jaźń, proszę o pomoc.",
    "hu": "Árvíztűrő tükörfúrógép, nagyon jó idő volt.",
    "ro": "Bună ziua, vă rog să mă ajutaţi cu această problemă şi.",
    "lt": "Ačiū už pagalbą, šiandien ėjau į mokyklą.",
    "sl": "Češnja, žival, šola in človek.",
    "ru": "Принтер не работает.",
    "el": "Ο εκτυπωτής δεν λειτουργεί.",
    "tr": "Yazıcı çalışmıyor, lütfen yardım edin, şifre değişti.",
    "ja": "プリンターが動きません。",
    "zh": "打印机不工作了，请帮忙。",
    "he": "שלום עולם זה טקסט",
    "ar": "مرحبا بالعالم هذا نص",
}
ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("latin-1", "iso8859-2", "iso8859-15", "mac-roman", "cp437", "cp850", "koi8-r"),
    *("shift-jis", "euc-jp", "gb18030", "big5", "iso2022-jp"),
    *("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"),
)


@pytest.mark.parametrize("language", WORDS)
def test_no_encoding_is_taken_for_another(tmp_path, language):
    read_as = []
    for encoding in ENCODINGS:
        try:
            content = f"text;label\n{WORDS[language]};x\n".encode(encoding)
        except UnicodeEncodeError:
            continue
        try:
            columns, how, _ = read(tmp_path, "t.csv", content)
        except UserError as error:
            assert encoding != "cp1252" and not encoding.startswith("utf-8") and error.hint
            continue
        assert columns["text"] == [WORDS[language]], (encoding, how)
        assert (how == "semicolon-separated") == encoding.startswith("utf-8")
        read_as.append(encoding)
    assert {"utf-8", "utf-8-sig", "utf-16", "utf-32"} <= set(read_as)


def test_a_broken_line_of_utf8_is_named(tmp_path):
    good = "Grüße,x\n".encode()
    with pytest.raises(UserError, match=r"is UTF-8, but line 3 contains invalid bytes \(0xfc\)") as caught:
        read(tmp_path, "t.csv", b"text,label\n" + good + "Grüße,x\n".encode("cp1252") + good * 9)
    assert caught.value.where.endswith("t.csv:3")
    with pytest.raises(UserError, match="it looks like cp1251") as caught:
        read(tmp_path, "t.csv", ("text,label\n" + "Принтер не работает,x\n" * 3).encode("cp1251"))
    assert "iconv -f cp1251 -t utf-8" in caught.value.hint


def test_tagged_words_and_plain_lines_are_decoded_alike(tmp_path):
    (tmp_path / "a.conll").write_bytes("Jörg B-PER\r\nlacht O\r\n".encode("cp1252"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("Grüße\r\naus\x85Köln\rund\u2028mehr\n".encode("utf-16")))
    assert read_sides(DataSettings(path=str(tmp_path / "a.conll")), [])["train"].words == (("Jörg", "lacht"),)
    found = read_table(tmp_path / "b.txt.gz", DataSettings())
    assert list(found.columns["text"]) == ["Grüße", "aus\x85Köln", "und\u2028mehr"] and found.how == "UTF-16"
