/** From statuses of gRPC to our errors. */

import { fromBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { CODES, errorOf, StewardError, type Refusal } from "../errors.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import type { Status } from "../gen/google/rpc/status_pb.js";
import { TextErrorsSchema } from "../gen/steward/gateway/v1/faults_pb.js";

/** A detail by the full name of its type. */
interface Detail {
  type: string;
  value: Uint8Array;
}

/** The exception of whatever a call failed with. */
export function errorOfCall(error: unknown): StewardError {
  if (error instanceof StewardError) return error;
  const failed = ConnectError.from(error);
  const details = failed.details.filter((detail): detail is Detail & typeof detail => "type" in detail);
  return refused(failed.code, failed.rawMessage, details, failed);
}

/** The exception of a refusal that travels inside a stream. */
export function errorOfStatus(status: Status): StewardError {
  const details = status.details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return refused(status.code, status.message, details);
}

function refused(number: number, message: string, details: Detail[], cause?: unknown): StewardError {
  const code = CODES[number] ?? "UNKNOWN";
  const refusal: Refusal = { code, message: message || code, cause };
  for (const { type, value } of details) {
    if (type === ErrorInfoSchema.typeName) {
      const info = fromBinary(ErrorInfoSchema, value);
      refusal.reason = info.reason;
      refusal.facts = info.metadata;
    } else if (type === BadRequestSchema.typeName) {
      const { fieldViolations } = fromBinary(BadRequestSchema, value);
      refusal.fields = Object.fromEntries(
        fieldViolations.map(({ field, description }) => [field, description]),
      );
    } else if (type === RetryInfoSchema.typeName) {
      const { retryDelay } = fromBinary(RetryInfoSchema, value);
      if (retryDelay) refusal.retryAfterS = durationMs(retryDelay) / 1000;
    } else if (type === TextErrorsSchema.typeName) {
      refusal.errors = fromBinary(TextErrorsSchema, value).errors.map(
        ({ line, column, path, message }) => ({ line, column, path, message }),
      );
    }
  }
  return errorOf(refusal);
}
