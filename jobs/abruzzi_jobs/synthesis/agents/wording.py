"""An agent's system prompt in a model's words. An answer that is no prompt leaves the agent as it was."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from abruzzi.contracts.agent import AgentSpec
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse
from abruzzi_jobs.synthesis.agents.make import agent_id
from abruzzi_jobs.synthesis.wording import answer_text, in_other_words

_ASKED = """Write the system prompt of an assistant that uses tools.
What it is like: {traits}
Its tools: {tools}
Say the following to it in your own words, in the second person, in one paragraph of at most {most} words. Answer with the prompt alone.

{prompt}"""
_FEWEST, _MOST = 15, 160
_NO_PROMPT = re.compile(r"[{}<>]|```|\bas an ai\b|system prompt|\bhere is\b", re.IGNORECASE)


def prompt_request(agent: AgentSpec) -> ChatRequest:
    """For a role that writes, such as `tool_author`."""
    traits = ", ".join(f"{name}: {value}" for name, value in agent.traits.items())
    asked = _ASKED.format(
        traits=traits, tools=", ".join(t.name for t in agent.tools), most=_MOST, prompt=agent.system_prompt
    )
    return ChatRequest(messages=[{"role": "user", "content": asked}], max_tokens=2 * _MOST)


def prompt_fault(agent: AgentSpec, text: str) -> str:
    """Why it cannot be a system prompt; empty where it can."""
    if not _FEWEST <= len(text.split()) <= _MOST:
        return "length"
    if _NO_PROMPT.search(text):
        return "no_prompt"
    return "" if re.search(r"\byou\b", text, re.IGNORECASE) else "speaks_to_nobody"


def reprompted(agent: AgentSpec, response: ChatResponse) -> tuple[AgentSpec, str]:
    """(the agent with the model's prompt, under its own id, "") or (the agent as it was, why)."""
    text = answer_text(response)
    if fault := prompt_fault(agent, text):
        return agent, fault
    made = {"id": agent_id(text, agent.tools), "system_prompt": text, "is_llm": response.is_llm}
    return agent.model_copy(update={**made, "generator": f"{agent.generator}+{response.generator}"}), ""


async def reprompt(agents: Sequence[AgentSpec], author: ChatBackend) -> tuple[list[AgentSpec], Counter[str]]:
    """As `in_other_words`; before tasks are made, which name agents by id."""
    return await in_other_words(agents, author, prompt_request, reprompted)
