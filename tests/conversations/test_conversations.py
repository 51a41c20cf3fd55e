"""Every conversation in this directory, played on a fresh core, with and without the hot path."""

from pathlib import Path

import pytest

from amqpd.testing.conversation import Conversation, load
from amqpd.testing.conversation_core import CoreStage
from amqpd.testing.conversation_play import play

CONVERSATIONS = [
    conversation
    for path in sorted(Path(__file__).parent.glob("*.conv"))
    for conversation in load(path)
]


@pytest.mark.parametrize("hotpath", [True, False], ids=["hot", "slow"])
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda item: item.name)
def test_the_core_answers_as_the_conversation_says(
    conversation: Conversation, hotpath: bool
) -> None:
    play(conversation, CoreStage(hotpath=hotpath))
