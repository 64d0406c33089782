"""OpenEnv's own server and client, in an environment of its own (`.bench-envs/openenv`, made by bench/environments.py).

python bench/environments_openenv.py serve PORT        the same echo as ours, on openenv's server, until standard input ends
python bench/environments_openenv.py play URL SEED     openenv's generic client plays arithmetic on our server; prints what it saw as JSON
"""

from __future__ import annotations

import json
import sys
import threading


def serve(port: int) -> None:
    import uvicorn
    from openenv.core.env_server import http_server
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class EchoAction(Action):
        message: str

    class EchoObservation(Observation):
        echoed: str

    class Echo(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._state = State(episode_id="e", step_count=0)

        def reset(self, seed=None, episode_id=None):
            return EchoObservation(echoed="Say something.")

        def step(self, action):
            return EchoObservation(echoed=action.message, reward=0.0)

        async def reset_async(self, seed=None, episode_id=None, **more):
            return self.reset()

        async def step_async(self, action, timeout_s=None, **more):
            return self.step(action)

        @property
        def state(self):
            return self._state

    app = http_server.create_fastapi_app(Echo, EchoAction, EchoObservation, max_concurrent_envs=4096)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", backlog=4096))

    def tell() -> None:
        while not server.started:
            pass_on.wait(0.05)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.should_exit = True

    pass_on = threading.Event()
    threading.Thread(target=tell, daemon=True).start()
    server.run()


def play(url: str, seed: int) -> None:
    from openenv.core.generic_client import GenericEnvClient

    with GenericEnvClient(base_url=url).sync() as client:
        begin = client.reset(seed=seed)
        prompt = begin.observation["messages"][0]["content"]
        left, operator, right = prompt.removesuffix(" =").split(" ")
        value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[operator]
        end = client.step({"content": str(value)})
        state = client.state()
        told = {
            "prompt": prompt,
            "begin": [begin.reward, begin.done],
            "end": [end.reward, end.done],
            "steps": state["step_count"],
        }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        play(sys.argv[2], int(sys.argv[3]))
