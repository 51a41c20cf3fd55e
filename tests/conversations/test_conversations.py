"""Every conversation in this directory, played on a fresh core.

Each is played four times: frame by frame, with and without the hot path; with all frames that can
come in one read in one read; and with reads that end anywhere.
"""

from pathlib import Path

import pytest

from amqpd.testing.conversation import Conversation, load
from amqpd.testing.conversation_core import CoreStage, Cut
from amqpd.testing.conversation_play import play

CONVERSATIONS = [
    conversation
    for path in sorted(Path(__file__).parent.glob("*.conv"))
    for conversation in load(path)
]


@pytest.mark.parametrize(
    ("cut", "hotpath"),
    [
        pytest.param("frames", True, id="hot"),
        pytest.param("together", True, id="together"),
        pytest.param("pieces", True, id="pieces"),
        pytest.param("frames", False, id="slow"),
    ],
)
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda item: item.name)
def test_the_core_answers_as_the_conversation_says(
    conversation: Conversation, cut: Cut, hotpath: bool
) -> None:
    stage = CoreStage(hotpath=hotpath, cut=cut, permissions=conversation.permissions)
    play(conversation, stage)
    assert not stage.harness.core.sessions, "the core still knows clients that have gone"
