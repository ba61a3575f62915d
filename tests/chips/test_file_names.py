"""Files are found by the end of their paths, as much of it as tells them apart."""

from pathlib import PurePosixPath

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmsniper.chips.file_names import match_files

NAME = st.sampled_from(['0.png', '1.png', '2.png'])
FOLDER = st.lists(st.sampled_from(['a', 'b', 'train']), max_size=3).map('/'.join)
FILES = st.lists(
    st.builds(lambda f, n: str(PurePosixPath(f) / n), FOLDER, NAME), max_size=8, unique=True
)


def test_folders_do_not_count_where_the_names_tell_the_files_apart():
    assert match_files(['/new/1.png', '/new/0.png'], ['old/0.png', '1.png']).tolist() == [1, 0]


def test_folders_count_where_names_occur_twice_on_either_side():
    both = ['old/train/0.png', 'old/val/0.png']
    assert match_files(['/data/val/0.png', '/data/val/1.png'], both).tolist() == [1, -1]
    assert match_files(['/new/val/0.png', '/new/train/0.png'], ['train/0.png']).tolist() == [-1, 0]


def test_a_file_may_be_asked_for_several_times():
    assert match_files(['a/0.png'] * 2 + ['a/9.png'], ['0.png']).tolist() == [0, 0, -1]
    assert match_files([], ['0.png']).tolist() == match_files([], []).tolist() == []


@given(
    st.lists(
        st.builds(
            lambda *parts: '/'.join(parts), st.sampled_from('abc'), st.sampled_from('abc'), NAME
        ),
        unique=True,
    )
)
def test_a_whole_data_set_is_found_in_another_folder(files):
    moved = [f'/moved/here/{file}' for file in files]
    order = np.random.default_rng(0).permutation(len(files))
    assert match_files([moved[i] for i in order], files).tolist() == order.tolist()


@given(FILES, FILES)
def test_what_is_found_has_the_same_file_name_and_nothing_is_found_twice(paths, among):
    index = match_files(paths, among)
    found = index[index >= 0].tolist()
    assert len(set(found)) == len(found)
    for path, i in zip(paths, index):
        if i >= 0:
            assert PurePosixPath(path).name == PurePosixPath(among[i]).name
