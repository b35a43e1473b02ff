"""An agent as anyone would write it: the openai package and nothing else.

It asks until its money is gone. Run it through Steward, which hands it an address and a key:

    from steward_client import Runtime

    with Runtime(budget=5, verbose=True) as runtime:
        runtime.wait(runtime.start_agent("agent.py"))
"""

import os

import openai

MODEL = os.environ.get("MODEL", "gpt-4o-mini")
QUESTIONS = int(os.environ.get("QUESTIONS", "1000"))


def main() -> None:
    client = openai.OpenAI()
    tokens = 0
    for number in range(1, QUESTIONS + 1):
        question = f"Tell me one thing about the number {number}."
        if number == 3:
            question += " Write it so that I can send it to ada@example.com."
        try:
            answer = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=200
            )
        except openai.APIStatusError as error:
            if error.status_code != 402:
                raise
            print(f"agent: call {number} got 402: {error.body}", flush=True)
            return
        tokens += answer.usage.total_tokens if answer.usage else 0
        if number % 10 == 0:
            print(f"agent: {tokens} tokens in {number} calls", flush=True)


if __name__ == "__main__":
    main()
