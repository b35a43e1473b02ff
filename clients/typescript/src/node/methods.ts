/** What the contracts say of a method that matters to whoever calls it. */

import {
  clone,
  create,
  getOption,
  type DescMethod,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { http } from "../gen/google/api/annotations_pb.js";
import { Access, method as methodRule } from "../gen/steward/gateway/v1/options_pb.js";

/** Whether anyone may call it: no credential is shown, nor renewed for it. */
export function isPublic(method: DescMethod): boolean {
  return getOption(method, methodRule).access === Access.PUBLIC;
}

/** The request with an identity of its own, where the method knows repeats by one. */
export function identified<I extends DescMessage>(
  method: DescMethod & { input: I },
  input: MessageInitShape<I>,
): MessageShape<I> {
  const request = create(method.input, input);
  const field = requestIdField(method);
  if (!field || reflect(method.input, request).get(field) !== "") return request;
  const named = clone(method.input, request); // what callers hand over stays theirs
  reflect(method.input, named).set(field, crypto.randomUUID());
  return named;
}

/** Whether making the call twice does no more than making it once. */
export function isRepeatable<I extends DescMessage>(
  method: DescMethod & { input: I },
  request: MessageShape<I>,
): boolean {
  if (getOption(method, http).pattern.case === "get") return true;
  const field = requestIdField(method);
  return field !== undefined && reflect(method.input, request).get(field) !== "";
}

function requestIdField(method: DescMethod) {
  const { requestIdField } = getOption(method, methodRule);
  return method.input.fields.find(
    (field) => field.name === requestIdField && field.fieldKind === "scalar",
  );
}
