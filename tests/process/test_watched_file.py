"""A file that is watched: tried with what cluster secrets, keys and signing keys make of it."""

from __future__ import annotations

from pathlib import Path

from p2pdist.errors import ConfigError
from p2pdist.process.watched_file import WatchedFile


class Words(WatchedFile[str]):
    def __init__(self, path: Path | None, first: str) -> None:
        super().__init__(path, first)
        self.said: list[str] = []
        self.wrong = "wrong"

    @property
    def word(self) -> str:
        return self._current

    def load(self, path: Path) -> str:
        word = path.read_text()
        if word == self.wrong:
            raise ConfigError(f"{word} is no word")
        return word

    def say_taken(self) -> None:
        self.said.append(f"taken {self._current}")

    def say_unread(self) -> None:
        self.said.append(f"unread: {self.trouble}")


async def looked(words: Words, times: int = 3) -> None:
    for _ in range(times):
        await words.look()


async def test_without_a_file_there_is_nothing_to_look_at() -> None:
    words = Words(None, "first")

    await words.look()
    await words.watch()  # it returns

    assert (words.word, words.said) == ("first", [])


async def test_who_has_to_do_something_hears_of_it_once_it_is_in_use(tmp_path: Path) -> None:
    path, heard = tmp_path / "word", list[str]()
    words = Words(path, "first")

    async def hear() -> None:
        heard.append(words.word)

    words.on_taken.append(hear)
    path.write_text("second")
    await looked(words)

    assert heard == ["second"]
    assert words.said == ["taken second"]
    assert words.taken_total == 1


async def test_what_was_no_good_may_be_after_something_else_changed(tmp_path: Path) -> None:
    path = tmp_path / "word"
    words = Words(path, "first")
    path.write_text("wrong")
    await looked(words)
    words.wrong = ""
    await looked(words)
    assert words.said == ["unread: wrong is no word"]

    words.look_anew()
    await looked(words, 1)

    assert words.said[1:] == ["taken wrong"]
    assert words.trouble == ""


async def test_what_is_well_is_not_read_again_for_that(tmp_path: Path) -> None:
    path = tmp_path / "word"
    words = Words(path, "first")
    path.write_text("second")
    await looked(words)

    words.look_anew()
    words.wrong = "second"
    await looked(words)

    assert words.said == ["taken second"]
