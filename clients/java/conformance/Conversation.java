import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.Message;
import dev.steward.budget.v1.Control;
import dev.steward.budget.v1.SessionRequest;
import dev.steward.budget.v1.SessionResponse;
import dev.steward.client.AgentStream;
import dev.steward.client.Session;
import dev.steward.client.Steward;
import dev.steward.client.StewardException;
import dev.steward.inference.v1.StreamRequest;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** Exchanges over a session or a stream of agents. */
final class Conversation implements AutoCloseable {
  private static final long PATIENCE_S = 60;
  private static final long PUSH_S = 5;

  private final AutoCloseable stream;
  private final Function<JsonElement, CompletableFuture<? extends Message>> asking;
  private final BlockingQueue<Control> pushed;

  private Conversation(
      AutoCloseable stream,
      Function<JsonElement, CompletableFuture<? extends Message>> asking,
      BlockingQueue<Control> pushed) {
    this.stream = stream;
    this.asking = asking;
    this.pushed = pushed;
  }

  static Conversation session(Steward steward) {
    BlockingQueue<Control> pushed = new LinkedBlockingQueue<>();
    Session session = steward.session(pushed::add);
    SessionRequest request = SessionRequest.getDefaultInstance();
    return new Conversation(
        session, said -> session.ask((SessionRequest) Json.read(said, request)), pushed);
  }

  static Conversation agents(Steward steward) {
    AgentStream agents = steward.agents();
    StreamRequest request = StreamRequest.getDefaultInstance();
    return new Conversation(
        agents,
        said -> agents.ask((StreamRequest) Json.read(said, request)),
        new LinkedBlockingQueue<>());
  }

  /** Says something; what must come of it is held against what comes when that is awaited. */
  Awaited say(JsonObject exchange) {
    var coming = asking.apply(exchange.get("send"));
    return () -> {
      try {
        JsonElement answer = Json.of(coming.get(PATIENCE_S, TimeUnit.SECONDS));
        if (exchange.has("refusal")) {
          throw new Unexpected("expected a refusal: " + exchange.get("refusal"), answer.toString());
        }
        Unexpected.unlessAnswers(exchange.get("answer"), answer);
        return answer;
      } catch (java.util.concurrent.ExecutionException error) {
        StewardException refusal = StewardException.of(error.getCause());
        Unexpected.unlessRefuses(exchange.getAsJsonObject("refusal"), refusal);
        return new JsonObject();
      }
    };
  }

  /** The next message that the server says by itself, held against what it must be. */
  JsonElement push(JsonElement pattern) throws InterruptedException {
    Control control = pushed.poll(PUSH_S, TimeUnit.SECONDS);
    if (control == null) {
      throw new Unexpected("expected a push: " + pattern, "none in " + PUSH_S + " s");
    }
    JsonElement said = Json.of(SessionResponse.newBuilder().setControl(control).build());
    Unexpected.unlessAnswers(pattern, said);
    return said;
  }

  @Override
  public void close() throws Exception {
    stream.close();
  }

  /** Something that was said, and its answer to come. */
  interface Awaited {
    JsonElement answer() throws Exception;
  }
}
