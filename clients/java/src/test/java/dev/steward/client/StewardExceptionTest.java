package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.BadRequest.FieldViolation;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import dev.steward.gateway.v1.TextErrors;
import io.grpc.Status.Code;
import io.grpc.protobuf.StatusProto;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class StewardExceptionTest {
  @ParameterizedTest
  @CsvSource({
    "UNAUTHENTICATED, '', Unauthorized",
    "PERMISSION_DENIED, '', Forbidden",
    "NOT_FOUND, '', NotFound",
    "INVALID_ARGUMENT, '', InvalidRequest",
    "OUT_OF_RANGE, SEQUENCE_GAP, InvalidRequest",
    "ALREADY_EXISTS, '', Conflict",
    "FAILED_PRECONDITION, LEASE_CLOSED, Conflict",
    "FAILED_PRECONDITION, AGENT_STOPPED, AgentStopped",
    "ABORTED, '', Conflict",
    "RESOURCE_EXHAUSTED, '', RateLimited",
    "RESOURCE_EXHAUSTED, BUDGET_EXCEEDED, BudgetExceeded",
    "RESOURCE_EXHAUSTED, LIMIT_COST_PER_MONTH, BudgetExceeded",
    "UNAVAILABLE, '', Unavailable",
    "UNAVAILABLE, CIRCUIT_OPEN, CircuitOpen",
    "CANCELLED, '', Unavailable",
    "DEADLINE_EXCEEDED, '', DeadlineExceeded",
    "INTERNAL, '', ServerFault",
    "UNIMPLEMENTED, '', ServerFault",
  })
  void aCodeAndAReasonMakeAKind(Code code, String reason, String kind) {
    StewardException refusal =
        StewardException.of(status(code, ErrorInfo.newBuilder().setReason(reason).build()));
    assertEquals(kind, refusal.getClass().getSimpleName());
    assertEquals(code, refusal.code());
  }

  @Test
  void whatAServerTellsOfARefusalIsToldOn() {
    ErrorInfo info =
        ErrorInfo.newBuilder().setReason("VALIDATION_ERROR").putMetadata("path", "a.yaml").build();
    FieldViolation violation =
        FieldViolation.newBuilder().setField("text").setDescription("is no YAML").build();
    TextErrors wrong =
        TextErrors.newBuilder()
            .addErrors(
                dev.steward.gateway.v1.TextError.newBuilder()
                    .setLine(4)
                    .setColumn(32)
                    .setPath("a.yaml")
                    .setMessage("a tab"))
            .build();
    BadRequest fields = BadRequest.newBuilder().addFieldViolations(violation).build();

    StewardException refusal =
        StewardException.of(status(Code.INVALID_ARGUMENT, info, fields, wrong));

    assertEquals("it is wrong", refusal.getMessage());
    assertEquals("VALIDATION_ERROR", refusal.reason());
    assertEquals(Map.of("path", "a.yaml"), refusal.facts());
    assertEquals(Map.of("text", "is no YAML"), refusal.fields());
    assertEquals(Optional.empty(), refusal.retryAfter());
    assertEquals(List.of(new TextError(4, 32, "a.yaml", "a tab")), refusal.textErrors());
  }

  @Test
  void aRefusalWithoutAReasonHasThatOfItsKind() {
    assertEquals("NOT_FOUND", StewardException.of(status(Code.NOT_FOUND)).reason());
  }

  @Test
  void theExceptionOfAGeneratedStubIsRead() {
    ErrorInfo info = ErrorInfo.newBuilder().setReason("USER_NOT_FOUND").build();
    var thrown = StatusProto.toStatusRuntimeException(status(Code.NOT_FOUND, info));

    StewardException refusal = StewardException.of(thrown);

    assertInstanceOf(StewardException.NotFound.class, refusal);
    assertEquals("USER_NOT_FOUND", refusal.reason());
    assertEquals(thrown, refusal.getCause());
  }

  private static Status status(Code code, com.google.protobuf.Message... details) {
    Status.Builder status = Status.newBuilder().setCode(code.value()).setMessage("it is wrong");
    for (var detail : details) {
      status.addDetails(Any.pack(detail));
    }
    return status.build();
  }
}
