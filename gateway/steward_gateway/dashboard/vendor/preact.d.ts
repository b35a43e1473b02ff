// What preact.js is made of, for the type checker.
export { Component, createContext, render } from "preact";
export * from "preact/hooks";
import type { VNode } from "preact";
export type { ComponentChildren, VNode } from "preact";
export function html(strings: TemplateStringsArray, ...values: unknown[]): VNode;
