"""The rival of bench/trajectories.py, run by its own environment: tau2's Orchestrator with an agent and a user that cost nothing.

    echo '{"conversations": 1000, "judged": false}' | python trajectories_tau2.py

The agent calls what the task's own plan says, then tells the user so; the user says one thing, then ends. The domain is `mock`, the smallest that
tau2 brings; its database is parsed once and copied for each conversation. `judged`: tau2's environment evaluator looks at each, too. Prints a line of JSON for each it reads: CPU seconds, the agent's messages, the tools' answers, all steps.
"""

from __future__ import annotations

import json
import sys
import time

from loguru import logger
from tau2.agent.base import BaseAgent
from tau2.data_model.message import AssistantMessage, ToolCall, UserMessage
from tau2.domains.mock.data_model import MockDB
from tau2.domains.mock.environment import get_environment, get_tasks
from tau2.domains.mock.utils import MOCK_DB_PATH
from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation
from tau2.orchestrator.orchestrator import Orchestrator
from tau2.user.base import STOP, BaseUser

logger.remove()


class Planned(BaseAgent):
    """Its state is how many of its calls it has made."""

    def __init__(self, task) -> None:
        criteria = task.evaluation_criteria
        self.plan = [a for a in (criteria.actions or []) if a.requestor == "assistant"] if criteria else []

    def get_init_state(self, message_history=None):
        return 0

    def generate_next_message(self, message, state):
        if state < len(self.plan):
            action = self.plan[state]
            call = ToolCall(id=f"call_{state}", name=action.name, arguments=action.arguments, requestor="assistant")
            return AssistantMessage(role="assistant", tool_calls=[call], cost=0.0), state + 1
        return AssistantMessage(role="assistant", content="It is done.", cost=0.0), state

    def set_seed(self, seed):
        pass

    def stop(self, message=None, state=None):
        pass


class Brief(BaseUser):
    """Its state is how often it has spoken."""

    def __init__(self) -> None:
        super().__init__()

    def get_init_state(self, message_history=None):
        return 0

    def generate_next_message(self, message, state):
        said = "Please do what I need." if state == 0 else STOP
        return UserMessage(role="user", content=said, cost=0.0), state + 1

    @classmethod
    def is_stop(cls, message):
        return message.content is not None and STOP in message.content

    def set_seed(self, seed):
        pass

    def stop(self, message=None, state=None):
        pass


def main() -> None:
    tasks = [t for t in get_tasks() if t.initial_state is None and Planned(t).plan]
    parsed = MockDB.load(MOCK_DB_PATH)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(played(tasks, parsed, order["conversations"], order["judged"])), flush=True)


def played(tasks, parsed, conversations: int, judged: bool) -> dict[str, float]:
    began = time.process_time()
    turns = answers = steps = kept = 0
    for number in range(conversations):
        task = tasks[number % len(tasks)]
        environment = get_environment(parsed.model_copy(deep=True))
        done = Orchestrator(
            domain="mock", agent=Planned(task), user=Brief(), environment=environment, task=task, seed=number
        )
        run = done.run()
        assert run.termination_reason == "user_stop", run.termination_reason
        if judged:
            found = evaluate_simulation(run, task, EvaluationType.ENV, solo_mode=False, domain="mock")
            kept += found.reward == 1.0
        turns += sum(message.role == "assistant" for message in run.messages) - 1  # its greeting was not asked for
        answers += sum(message.role == "tool" for message in run.messages)
        steps += done.step_count
    seconds = time.process_time() - began
    return {"cpu_seconds": seconds, "turns": turns, "calls": answers, "steps": steps, "tasks": len(tasks), "kept": kept}


if __name__ == "__main__":
    main()
