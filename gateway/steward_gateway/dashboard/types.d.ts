// The paths of REST as /openapi.json describes them, in the form api.js takes them.
import type { components, paths } from "steward-api";

export type Schemas = components["schemas"];

/** Paths that are served with a method. */
export type PathOf<Method extends string> = {
  [Path in keyof paths]: paths[Path] extends { [M in Method]: object } ? Path : never;
}[keyof paths];

type Operation<Path extends keyof paths, Method extends string> = Method extends keyof paths[Path] ? paths[Path][Method] : never;

type Json<Holder> = Holder extends { content: { "application/json": infer Body } } ? Body : undefined;

export type AnswerOf<Path extends keyof paths, Method extends string> =
  Operation<Path, Method> extends { responses: infer Answers }
    ? Answers extends { 200: infer Answer } | { 201: infer Answer } ? Json<Answer> : undefined
    : undefined;

export type BodyOf<Path extends keyof paths, Method extends string> =
  Operation<Path, Method> extends { requestBody?: infer Holder } ? Json<NonNullable<Holder>> : never;

type Parameters<Path extends keyof paths, Method extends string> =
  Operation<Path, Method> extends { parameters: infer Known } ? Known : never;

export type QueryOf<Path extends keyof paths, Method extends string> =
  Parameters<Path, Method> extends { query?: infer Query } ? NonNullable<Query> : never;

/** What stands between the braces of a path. */
export type NamesIn<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}` ? Name | NamesIn<Rest> : never;

export interface Options<Path extends keyof paths, Method extends string> {
  path?: Partial<Record<NamesIn<Path>, string>>;
  query?: QueryOf<Path, Method>;
  body?: BodyOf<Path, Method>;
  signal?: AbortSignal;
}
