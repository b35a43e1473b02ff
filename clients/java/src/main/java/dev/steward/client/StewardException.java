package dev.steward.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.steward.gateway.v1.TextErrors;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.Serializable;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionException;
import java.util.function.Function;

/**
 * A refusal. {@link #reason} is stable and made for programs, the message for people.
 *
 * <pre>
 * StewardException
 * ├── Unauthorized         no credential, or one that is not good (any more)
 * ├── Forbidden            a good credential that may not do this
 * ├── NotFound             no such thing, or none the caller may see
 * ├── InvalidRequest       a value is wrong; fields() says which and why
 * ├── Conflict             the thing is in a state, or has a name, that does not allow it
 * │   └── AgentStopped     the agent was told to stop; start it first
 * ├── BudgetExceeded       nothing is left, or too little
 * ├── RateLimited          too many calls; retryAfter() says when to try again
 * ├── CircuitOpen          something behind the server keeps failing; retryAfter() likewise
 * ├── Unavailable          the server cannot be reached, or not now
 * │   └── StreamBroken     a stream of agents is cut, and their state may be lost
 * ├── DeadlineExceeded     no answer in time; it may have been done all the same
 * └── ServerFault          a fault of the server's; its message names what to look for in the log
 * </pre>
 */
public abstract sealed class StewardException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private static final String STREAM_BROKEN = "STREAM_BROKEN";

  private final Refusal refusal;

  private StewardException(Refusal refusal) {
    super(refusal.message);
    this.refusal = refusal;
  }

  /** The exception of a call that failed, whichever generated stub made it. */
  public static StewardException of(Throwable error) {
    if (error instanceof StewardException known) {
      return known;
    }
    if (error instanceof CompletionException wrapper && wrapper.getCause() != null) {
      return of(wrapper.getCause());
    }
    StewardException refusal = of(Status.fromThrowable(error), trailersOf(error));
    refusal.initCause(error);
    return refusal;
  }

  /** The exception of a refusal that travels inside a stream. */
  public static StewardException of(com.google.rpc.Status status) {
    Status.Code code = Status.fromCodeValue(status.getCode()).getCode();
    String message = status.getMessage().isEmpty() ? code.name() : status.getMessage();
    ErrorInfo info = detail(status, ErrorInfo.getDefaultInstance());
    RetryInfo retry = detail(status, RetryInfo.getDefaultInstance());
    Map<String, String> fields = new LinkedHashMap<>();
    for (var violation : detail(status, BadRequest.getDefaultInstance()).getFieldViolationsList()) {
      fields.put(violation.getField(), violation.getDescription());
    }
    return kind(code, info.getReason())
        .apply(
            new Refusal(
                code,
                message,
                info.getReason(),
                Map.copyOf(info.getMetadataMap()),
                Map.copyOf(fields),
                retry.hasRetryDelay() ? duration(retry.getRetryDelay()) : null,
                detail(status, TextErrors.getDefaultInstance()).getErrorsList().stream()
                    .map(
                        e -> new TextError(e.getLine(), e.getColumn(), e.getPath(), e.getMessage()))
                    .toList()));
  }

  static StewardException of(Status status, Metadata trailers) {
    return of(StatusProto.fromStatusAndTrailers(status, trailers));
  }

  /** The code that the refusal came with. */
  public Status.Code code() {
    return refusal.code;
  }

  /** Why, in a word for programs, such as {@code LEASE_CLOSED}. */
  public String reason() {
    return refusal.reason.isEmpty() ? defaultReason() : refusal.reason;
  }

  /** What the refusal is about, by name. */
  public Map<String, String> facts() {
    return refusal.facts;
  }

  /** Which fields of the request are wrong, and why. */
  public Map<String, String> fields() {
    return refusal.fields;
  }

  /** When to try again, if the server said it. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(refusal.retryAfter);
  }

  /** What is wrong with a text that was sent, or asked for. */
  public List<TextError> textErrors() {
    return refusal.textErrors;
  }

  abstract String defaultReason();

  /** The same, thrown here: what the caller did says more than what grpc's thread did. */
  StewardException here() {
    StewardException same = kind(refusal.code, refusal.reason).apply(refusal);
    same.initCause(this);
    return same;
  }

  private static Function<Refusal, StewardException> kind(Status.Code code, String reason) {
    return switch (reason) {
      case "BUDGET_EXCEEDED", "LIMIT_COST_PER_MONTH" -> BudgetExceeded::new;
      case "RATE_LIMITED", "ACCOUNT_LOCKED" -> RateLimited::new;
      case "CIRCUIT_OPEN" -> CircuitOpen::new;
      case "AGENT_STOPPED" -> AgentStopped::new;
      case STREAM_BROKEN -> StreamBroken::new;
      default ->
          switch (code) {
            case UNAUTHENTICATED -> Unauthorized::new;
            case PERMISSION_DENIED -> Forbidden::new;
            case NOT_FOUND -> NotFound::new;
            case INVALID_ARGUMENT, OUT_OF_RANGE -> InvalidRequest::new;
            case ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED -> Conflict::new;
            case RESOURCE_EXHAUSTED -> RateLimited::new;
            case UNAVAILABLE, CANCELLED -> Unavailable::new;
            case DEADLINE_EXCEEDED -> DeadlineExceeded::new;
            default -> ServerFault::new;
          };
    };
  }

  private static <T extends Message> T detail(com.google.rpc.Status status, T kind) {
    for (Any detail : status.getDetailsList()) {
      if (detail.isSameTypeAs(kind)) {
        try {
          return detail.unpackSameTypeAs(kind);
        } catch (InvalidProtocolBufferException error) {
          return kind; // what cannot be read is as if it were not said
        }
      }
    }
    return kind;
  }

  private static Duration duration(com.google.protobuf.Duration delay) {
    return Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
  }

  private static Metadata trailersOf(Throwable error) {
    if (error instanceof StatusRuntimeException refused) {
      return refused.getTrailers();
    }
    return error instanceof StatusException refused ? refused.getTrailers() : null;
  }

  private record Refusal(
      Status.Code code,
      String message,
      String reason,
      Map<String, String> facts,
      Map<String, String> fields,
      Duration retryAfter,
      List<TextError> textErrors)
      implements Serializable {
    Refusal(Status.Code code, String message) {
      this(code, message, "", Map.of(), Map.of(), null, List.of());
    }
  }

  /** No credential, or one that is unknown, expired or revoked. */
  public static final class Unauthorized extends StewardException {
    private static final long serialVersionUID = 1;

    private Unauthorized(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "UNAUTHENTICATED";
    }
  }

  /** The credential is good and may not do this. */
  public static final class Forbidden extends StewardException {
    private static final long serialVersionUID = 1;

    private Forbidden(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "PERMISSION_DENIED";
    }
  }

  /** No such thing, or none the caller may see. */
  public static final class NotFound extends StewardException {
    private static final long serialVersionUID = 1;

    private NotFound(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "NOT_FOUND";
    }
  }

  /** A value is wrong; {@link #fields} says which and why. */
  public static final class InvalidRequest extends StewardException {
    private static final long serialVersionUID = 1;

    private InvalidRequest(Refusal refusal) {
      super(refusal);
    }

    InvalidRequest(String message) {
      this(new Refusal(Status.Code.INVALID_ARGUMENT, message));
    }

    @Override
    String defaultReason() {
      return "VALIDATION_ERROR";
    }
  }

  /** The thing exists already, or is in a state that does not allow this. */
  public static sealed class Conflict extends StewardException {
    private static final long serialVersionUID = 1;

    private Conflict(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "CONFLICT";
    }
  }

  /** The agent was told to stop and is lent nothing until it is started. */
  public static final class AgentStopped extends Conflict {
    private static final long serialVersionUID = 1;

    private AgentStopped(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "AGENT_STOPPED";
    }
  }

  /** Nothing is left to lend, or less than was needed. */
  public static final class BudgetExceeded extends StewardException {
    private static final long serialVersionUID = 1;

    private BudgetExceeded(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "BUDGET_EXCEEDED";
    }
  }

  /** Too many calls; {@link #retryAfter} says when to try again. */
  public static final class RateLimited extends StewardException {
    private static final long serialVersionUID = 1;

    private RateLimited(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "RATE_LIMITED";
    }
  }

  /** Something behind the server keeps failing and is not asked now. */
  public static final class CircuitOpen extends StewardException {
    private static final long serialVersionUID = 1;

    private CircuitOpen(Refusal refusal) {
      super(refusal);
    }

    @Override
    String defaultReason() {
      return "CIRCUIT_OPEN";
    }
  }

  /** The server cannot be reached, or does not serve now. */
  public static sealed class Unavailable extends StewardException {
    private static final long serialVersionUID = 1;

    private Unavailable(Refusal refusal) {
      super(refusal);
    }

    Unavailable(String message) {
      this(new Refusal(Status.Code.UNAVAILABLE, message));
    }

    @Override
    String defaultReason() {
      return "UNAVAILABLE";
    }
  }

  /** A stream of agents is cut: what the server kept of them may be lost. */
  public static final class StreamBroken extends Unavailable {
    private static final long serialVersionUID = 1;

    private StreamBroken(Refusal refusal) {
      super(refusal);
    }

    StreamBroken(StewardException cut) {
      this(
          new Refusal(
              Status.Code.UNAVAILABLE,
              ("the stream is cut (%s): steps under way may have been made, and what the policy"
                      + " kept of the agents may be lost")
                  .formatted(cut.getMessage()),
              STREAM_BROKEN,
              cut.facts(),
              Map.of(),
              null,
              List.of()));
      initCause(cut);
    }

    @Override
    String defaultReason() {
      return STREAM_BROKEN;
    }
  }

  /** No answer in time; what was asked may have been done all the same. */
  public static final class DeadlineExceeded extends StewardException {
    private static final long serialVersionUID = 1;

    private DeadlineExceeded(Refusal refusal) {
      super(refusal);
    }

    DeadlineExceeded(String message) {
      this(new Refusal(Status.Code.DEADLINE_EXCEEDED, message));
    }

    @Override
    String defaultReason() {
      return "DEADLINE_EXCEEDED";
    }
  }

  /** A fault of the server's. */
  public static final class ServerFault extends StewardException {
    private static final long serialVersionUID = 1;

    private ServerFault(Refusal refusal) {
      super(refusal);
    }

    /** An answer has too few rows, or too many. */
    static ServerFault ofRows(int agentCount) {
      return new ServerFault(
          new Refusal(
              Status.Code.INTERNAL,
              "the answer has not a row for each of %d agents".formatted(agentCount)));
    }

    @Override
    String defaultReason() {
      return "INTERNAL_ERROR";
    }
  }
}
