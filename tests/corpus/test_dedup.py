"""When two passages say the same."""

from ragray.corpus.dedup import SeenKeys, content_hash, id_key


def test_case_and_white_space_make_no_difference() -> None:
    assert content_hash("A Title", "some\n text ") == content_hash("a  title", "Some TEXT")


def test_words_titles_and_where_the_title_ends_make_a_difference() -> None:
    hashes = [content_hash(*pair) for pair in (("t", "a b"), ("t", "a c"), ("", "a b"), ("u", "a b"), ("t a", "b"))]
    assert len(set(hashes)) == len(hashes)


def test_a_hash_is_128_bits_in_hex() -> None:
    assert len(bytes.fromhex(content_hash("", "text"))) == 16


def test_a_key_is_new_once() -> None:
    seen = SeenKeys()
    assert id_key("a") not in seen
    assert [seen.add(id_key(identity)) for identity in ("a", "b", "a")] == [True, True, False]
    assert id_key("a") in seen
    assert len(seen) == 2
