"""What a model card says of the checkpoint itself: every word of it follows from the files."""

from card_records import STAGE, TRAINING

from depthlm_ros.evaluation.card_checkpoint import how_it_was_made, how_to_ask, what_it_is
from depthlm_ros.evaluation.card_files import Checkpoint
from depthlm_ros.profile import TEXT_QUESTION, CheckpointProfile


def test_the_card_tells_what_is_answered_directly_from_what_was_trained(tmp_path):
    def said(**profile):
        checkpoint = Checkpoint(tmp_path, CheckpointProfile("small", 9.0, **profile), "", "", TRAINING)
        return what_it_is(checkpoint)

    none = said()
    assert "answers directly, in words: none: all follow from its depths by geometry" in none
    assert "Its training asked principal_axis_distance, two_point_distance, speed, time too" in none
    assert "camera_motion" not in none
    some = said(spatial_tasks=("speed",), max_new_tokens=40)
    assert "directly, in words: speed; answers to others follow" in some
    assert "asked principal_axis_distance, two_point_distance, time too" in some
    unknown = what_it_is(Checkpoint(tmp_path, CheckpointProfile("small", 9.0), "", "", None))
    assert "training asked" not in unknown


def made(tmp_path, profile=None, data=None, **text):
    recipe = {**TRAINING["recipe"], "text": {**STAGE, **text}}
    recipe["data"] = {**recipe["data"], **(data or {})}
    checkpoint = Checkpoint(
        tmp_path, profile or CheckpointProfile("small", 9.0), "", "", {**TRAINING, "recipe": recipe}
    )
    return how_it_was_made(checkpoint).split("All settings")[0]


def test_the_departure_says_which_losses_go_on_beside_the_text(tmp_path):
    text = made(tmp_path, dense_weight=0.7)
    vision, second = text.split("2. **Text**")
    assert "depth of every patch (weight 1), which image token the arrow points at (weight 0.2)" in vision
    assert "The whole model learns, the tower from 35% of the stage on: a question" in second
    assert (
        "depth of every patch (weight 0.7), which image token the arrow points at (weight 0.2), the depth"
        in second
    )
    assert "stage 2 is not text supervision alone" in second
    assert "dense labels among them" in second
    assert "rendered straight at the canonical focal length, one ray a pixel" in second
    assert "Of the batches 20% ask for the spatial tasks about points." in second
    sparse = made(tmp_path, dense_weight=0.0)
    assert "dense labels among them" not in sparse
    assert "stage 2 is not text supervision alone" in sparse
    for off in ({"dense_weight": 0.0, "pointing_weight": 0.0, "pointed_weight": 0.0}, {"frozen_share": 1.0}):
        assert "The losses of stage 1 are off." in made(tmp_path, **off)
        assert "stage 2 is not text supervision alone" not in made(tmp_path, **off)


def test_the_card_says_of_stage_2_what_its_record_says(tmp_path):
    off = {"dense_weight": 0.0, "pointing_weight": 0.0, "pointed_weight": 0.0}
    papers = made(tmp_path, data={"labels_per_view": 4}, frozen_share=0.0, **off)
    assert "The whole model learns, the tower from the start: a question about the pixel" in papers
    assert "sparse: 4 pixels of each view, and of its mirror image, are ever asked about" in papers
    assert "stage 2 is the paper's, with nothing but text and sparse labels" in papers
    shipped = made(tmp_path, data={"labels_per_view": 0}, frozen_share=1.0, median_share=0.7)
    assert "The language model alone learns, while the tower is frozen throughout: a question" in shipped
    assert "The pixel may be any of the view, drawn anew each time" in shipped
    departures = shipped.split("Departures from the paper")[1]
    for words in ("learns nothing from the text", "not sparse, since any pixel may be asked", "own reading"):
        assert words in departures
    for words in ("whole model", "sparse labels"):
        assert words not in shipped


def test_the_card_names_what_a_run_started_from_and_whose_medians_it_learnt(tmp_path):
    assert "from nothing" in made(tmp_path)
    assert "median" not in made(tmp_path)
    halved = made(tmp_path, median_share=0.5)
    assert (
        "In 50% of the depth answers the number is not the label but the median that the tower itself"
        in halved
    )
    assert "the tower's own reading in place of the label" in halved
    base = {"sha256": "abc123", "wall_minutes": {"vision": 48.0, "text": 20.0}, "recipe": {}, "base": None}
    profile = CheckpointProfile("small", 9.0)
    text = how_it_was_made(Checkpoint(tmp_path, profile, "", "", {**TRAINING, "base": base}))
    assert "from the weights of an earlier run of 48 and 20 min (sha256 `abc123`)" in text


def test_a_checkpoint_asked_by_coordinates_has_no_arrow(tmp_path):
    profile = CheckpointProfile("small", 9.0, pixel_reference="text", question=TEXT_QUESTION)
    text = made(tmp_path, profile) + how_to_ask(Checkpoint(tmp_path, profile, "", "", None))
    assert "arrow" not in text
    assert "in steps of which each side of the image has 2000" in text
    assert TEXT_QUESTION in text
    marked = how_to_ask(Checkpoint(tmp_path, CheckpointProfile("small", 9.0), "", "", None))
    assert "Paint the red arrow" in marked
