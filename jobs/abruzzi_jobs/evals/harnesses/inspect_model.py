"""inspect-ai's model API: `inspect eval task.py --model abruzzi/NAME -M checkpoint=DIR -M tokenizer=DIR`, or `-M base_url=URL -M served=MODEL`.

inspect-ai finds it through the entry point group `inspect_ai`. Texts, calls of tools and log-probabilities go both ways; pictures do not.
"""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    GenerateConfig,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolFunction, ToolInfo

from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Message
from abruzzi_jobs.evals.harnesses.target import target

_STOPS: dict[str, StopReason] = {"stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls"}


@modelapi(name="abruzzi")
class AbruzziModel(ModelAPI):
    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),
        *,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
        served: str | None = None,
    ) -> None:
        """`served`: the model's name at `base_url`; absent: `model_name`. Raises AbruzziError `no_target`."""
        super().__init__(model_name, base_url, api_key, [], config)
        self._concurrency = config.max_connections or 8
        self._target = target(
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            base_url=base_url,
            model=served or model_name,
            api_key=api_key,
            concurrency=self._concurrency,
        )

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """What the target cannot take is an output with `error`, as inspect-ai has it; what ends an endpoint raises."""
        request = ChatRequest(
            messages=[_message(message) for message in input],
            tools=[_tool(tool) for tool in tools],
            tool_choice=_choice(tool_choice) if tools else None,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
            stop=config.stop_seqs or (),
            seed=config.seed,
            logprobs=(config.top_logprobs or 0) if config.logprobs else None,
        )
        try:
            return _output(await self._target.complete(request))
        except CallRejected as rejected:
            if rejected.reason != "too_long":
                raise
            return ModelOutput.from_content(self.model_name, "", stop_reason="model_length", error=rejected.message)

    def max_connections(self) -> int:
        return self._concurrency

    def close(self) -> None:
        self._target.close()


def _message(message: ChatMessage) -> Message:
    found: dict[str, Any] = {"role": message.role, "content": message.text}
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if isinstance(message, ChatMessageTool):
        found["tool_call_id"] = message.tool_call_id or ""
        if message.error is not None:
            found["content"] = message.error.message
    return found


def _tool(tool: ToolInfo) -> dict[str, Any]:
    parameters = tool.parameters.model_dump(exclude_none=True, by_alias=True)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if isinstance(choice, ToolFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice == "any" else choice


def _output(response: ChatResponse) -> ModelOutput:
    calls = [_call(call.id, call.name, call.arguments) for call in response.tool_calls]
    message = ChatMessageAssistant(
        content=response.text, tool_calls=calls or None, model=response.model, source="generate"
    )
    logprobs = None if response.logprobs is None else Logprobs.model_validate({"content": list(response.logprobs)})
    usage = response.usage
    return ModelOutput(
        model=response.model,
        choices=[
            ChatCompletionChoice(
                message=message, stop_reason=_STOPS.get(response.finish_reason, "unknown"), logprobs=logprobs
            )
        ],
        usage=ModelUsage(
            input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total
        ),
    )


def _call(identity: str, name: str, arguments: str) -> ToolCall:
    """One whose arguments are no JSON object carries the fault, which inspect-ai shows to the model."""
    try:
        parsed = json.loads(arguments or "{}")
        if not isinstance(parsed, dict):
            raise ValueError("they are no object")
    except ValueError as error:
        return ToolCall(id=identity, function=name, arguments={}, parse_error=f"{name}: bad arguments ({error})")
    return ToolCall(id=identity, function=name, arguments=parsed)
