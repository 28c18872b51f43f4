"""A video that the machine cannot hold is refused before it takes any memory."""


def test_a_size_beyond_the_memory(generate, monkeypatch, tmp_path):
    monkeypatch.setattr("animagic.pipelines.memory.room_on", lambda device: 10**8)
    generate("-o", "new.mp4", "--size", "960x640").refused("960x640 takes about", "give a smaller --size")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    generate("-o", "new.mp4", "--size", "8200x8192").refused("--size is 8200; it must lie between")
    generate("-o", "new.mp4", "--size", "16000x16000").refused("it must lie between 1 and 8192")
    assert not list(tmp_path.iterdir())


def test_many_threads_are_refused(generate):
    generate("-o", "new.mp4", "--threads", "100000").refused("threads must be at least 1 and at most")
