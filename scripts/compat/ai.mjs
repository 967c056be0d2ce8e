// npm's `ai` with @ai-sdk/openai, over chat completions; the same features as the other drivers.
import { createRequire } from "node:module";

const load = createRequire(process.env.HOME_OF_SDK + "/");
const { generateText, streamText, Output, tool, stepCountIs } = await import(load.resolve("ai"));
const { createOpenAI } = await import(load.resolve("@ai-sdk/openai"));
const { z } = await import(load.resolve("zod"));

const { BASE, KEY, BROKE_KEY, UPSTREAM, PNG } = process.env;
const of = (apiKey) => createOpenAI({ baseURL: BASE + "/v1", apiKey }).chat("gpt-4o-mini");
const model = of(KEY);
const same = (seen, want) => {
  const [a, b] = [JSON.stringify(seen), JSON.stringify(want)];
  if (a !== b) throw new Error(`${a}, not ${b}`);
};
const count = async (name) => (await (await fetch(UPSTREAM + "/counts")).json())[name];
const raised = async (call) => {
  try {
    await call();
  } catch (wrong) {
    return wrong;
  }
  throw new Error("nothing was raised");
};
const quiet = { onError() {} };

const features = {
  chat: async () => same((await generateText({ model, prompt: "hello" })).text, "héllo 北京"),
  stream: async () => {
    let out = "";
    for await (const part of streamText({ model, prompt: "hello" }).textStream) out += part;
    same(out, "héllo 北京");
  },
  tools: async () => {
    const get_weather = tool({
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => (same(city, "Rome"), "sunny"),
    });
    const asked = { model, prompt: "the weather?", tools: { get_weather }, stopWhen: stepCountIs(3) };
    same((await generateText(asked)).text, "It is sunny in Rome.");
  },
  images: async () => {
    const content = [
      { type: "text", text: "look at this" },
      { type: "file", data: Buffer.from(PNG, "base64"), mediaType: "image/png" },
    ];
    same((await generateText({ model, messages: [{ role: "user", content }] })).text, "a cat");
  },
  "structured output": async () => {
    const schema = z.object({ city: z.string(), degrees: z.number() });
    const output = Output.object({ schema });
    const reply = await generateText({ model, prompt: "where are 21 degrees?", output });
    same(reply.output, { city: "Rome", degrees: 21 });
  },
  errors: async () => {
    const wrong = await raised(() => generateText({ model, prompt: "say no" }));
    same([wrong.statusCode, wrong.message.includes("upstream says no")], [400, true]);
  },
  abort: async () => {
    const before = await count("cut");
    const stop = new AbortController();
    const run = streamText({ model, prompt: "count slowly", abortSignal: stop.signal, ...quiet });
    let n = 0;
    await raised(async () => {
      for await (const _ of run.textStream) if (++n === 3) stop.abort();
      throw new Error("left");
    });
    for (let tries = 0; (await count("cut")) === before; tries++) {
      if (tries === 100) throw new Error("the upstream goes on");
      await new Promise((done) => setTimeout(done, 50));
    }
  },
  "spent budget": async () => {
    const before = await count("asked");
    const wrong = await raised(() => generateText({ model: of(BROKE_KEY), prompt: "hello" }));
    same([wrong.statusCode, wrong.message.includes("budget")], [402, true]);
    same(await count("asked"), before);
  },
};
const found = {};
for (const [name, check] of Object.entries(features)) {
  try {
    await check();
    found[name] = "";
  } catch (wrong) {
    found[name] = String(wrong).slice(0, 300);
  }
}
console.log(JSON.stringify(found));
process.exit(0);
