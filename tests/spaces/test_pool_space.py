import json
from pathlib import Path

import pytest
import torch

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import Space
from activelearning.errors import ConfigError
from activelearning.spaces.pool import PoolSpace

HEADER = "space_group,composition,a,b,c,alpha,beta,gamma,score"
LIF = '225,"{""Li"": 4, ""F"": 4}",4.03,4.03,4.03,90,90,90,1.0'
LI2O = "225,Li8O4,4.62,4.62,4.62,90,90,90,3.0"


def write(folder: Path, text: str, name: str = "pool.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_numeric_pool(tmp_path: Path) -> None:
    file = write(tmp_path, "x,y,z\n1,10,7\n3,20,7\n2,40,7\n1,10,7\n")
    space = PoolSpace(file=file)
    assert isinstance(space, Space)
    assert space.candidates == tuple(BoxCandidate(v) for v in [(1, 10, 7), (3, 20, 7), (2, 40, 7)])
    expected = [[0.0, 0.0, 0.0], [1.0, 1 / 3, 0.0], [0.5, 1.0, 0.0]]
    torch.testing.assert_close(
        space.features(space.candidates), torch.tensor(expected, dtype=torch.float64), atol=1e-15, rtol=0
    )
    member = space.candidates[1]
    assert space.from_json(space.to_json(member)) == member
    with pytest.raises(ValueError, match="not in the pool"):
        space.validate(BoxCandidate((1, 20, 7)))


def test_chosen_columns_of_a_json_pool(tmp_path: Path) -> None:
    rows = [{"name": "one", "x": 0.0, "y": 4.0}, {"name": "two", "x": 1.0, "y": 2.0}]
    space = PoolSpace(file=write(tmp_path, json.dumps(rows), "pool.json"), features=["y"])
    assert space.candidates == (BoxCandidate((4.0,)), BoxCandidate((2.0,)))
    assert space.n_features == 1


def test_crystals_with_chosen_features(tmp_path: Path) -> None:
    space = PoolSpace(file=write(tmp_path, "\n".join([HEADER, LIF, LI2O])), features=["score"])
    lattice = (4.03, 4.03, 4.03, 90, 90, 90)
    assert space.candidates[0] == CrystalCandidate(225, {"Li": 4, "F": 4}, lattice)
    assert dict(space.candidates[1].to_dict()["composition"]) == {"Li": 8, "O": 4}
    assert space.features(space.candidates[::-1]).tolist() == [[1.0], [0.0]]


def test_crystals_with_descriptors(tmp_path: Path) -> None:
    pytest.importorskip("activelearning.crystals.features")
    space = PoolSpace(file=write(tmp_path, "\n".join([HEADER, LIF, LI2O])))
    features = space.features(space.candidates)
    assert features.shape == (2, space.n_features)
    assert features.dtype == torch.float64
    assert (features >= 0).all()
    assert (features <= 1).all()
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n", "holds no candidates"),
        ("x,y\n1,2\n3,?\n", r"row 2, column 'y' holds '\?'"),
        ("x,y\n1,2\n3\n", "row 2, column 'y' holds None"),
        ("x,y\n1,2,3\n", "row 1 has more cells"),
        ("x\nnan\n", "row 1, column 'x'"),
        (f"{HEADER}\n{LIF.replace('225', '231')}", "row 1 is no crystal: space_group must be 1 to 230"),
        (f"{HEADER}\n{LIF}\n{LI2O.replace('Li8O4', 'Xx8O4')}", "row 2"),
        (f"{HEADER}\n{LI2O.replace('Li8O4', 'Li7.5O4')}", "row 1 is no crystal: composition needs whole"),
        (f"{HEADER}\n{LIF}\n{LIF.replace('1.0', '2.0')}", None),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str | None) -> None:
    file = write(tmp_path, text)
    if message is None:
        with pytest.raises(ConfigError, match="row 1 and row 2 are the same crystal"):
            PoolSpace(file=file, features=["score"])
    else:
        with pytest.raises(ConfigError, match=message) as info:
            PoolSpace(file=file)
        assert file in str(info.value)


def test_missing_file_and_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        PoolSpace(file=str(tmp_path / "none.csv"))
    file = write(tmp_path, "x,y\n1,2\n")
    with pytest.raises(ConfigError, match=r"'w'.*it has: x, y"):
        PoolSpace(file=file, features=["w"])
    with pytest.raises(ConfigError, match=r"space\.features is empty"):
        PoolSpace(file=file, features=[])
    with pytest.raises(ConfigError, match="not valid JSON"):
        PoolSpace(file=write(tmp_path, "[", "pool.json"))
