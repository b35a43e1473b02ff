import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Message;
import dev.steward.client.Steward;
import dev.steward.client.StewardException;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.PrototypeMarshaller;
import io.grpc.ServiceDescriptor;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Makes the steps of clients/conformance/script.json through this client, and prints TAP. */
public final class Conformance {
  private final Map<String, String> environment;
  private final Variables variables;
  private final Map<List<String>, Steward> clients = new HashMap<>();

  private Conformance(Map<String, String> environment) {
    this.environment = environment;
    this.variables = new Variables(environment);
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> environment = System.getenv();
    String script = Files.readString(Path.of(environment.get("CONFORMANCE_SCRIPT")));
    JsonArray steps = JsonParser.parseString(script).getAsJsonObject().getAsJsonArray("steps");
    Conformance conformance = new Conformance(environment);
    boolean isGood = conformance.run(steps);
    conformance.clients.values().forEach(Steward::close);
    System.exit(isGood ? 0 : 1);
  }

  static Set<String> texts(JsonElement list) {
    Set<String> texts = new HashSet<>();
    list.getAsJsonArray().forEach(each -> texts.add(each.getAsString()));
    return texts;
  }

  private boolean run(JsonArray steps) {
    System.out.println("1.." + steps.size());
    for (int at = 0; at < steps.size(); at++) {
      JsonObject step = steps.get(at).getAsJsonObject();
      String said = "%d - %s".formatted(at + 1, step.get("say").getAsString());
      try {
        timed(step);
      } catch (Exception error) {
        System.out.println("not ok " + said);
        String why = error instanceof Unexpected ? error.getMessage() : error.toString();
        why.lines().forEach(line -> System.out.println("# " + line));
        return false;
      }
      System.out.println("ok " + said);
    }
    return true;
  }

  private void timed(JsonObject step) throws Exception {
    long begun = System.nanoTime();
    make(step);
    double took = (System.nanoTime() - begun) / 1e9;
    if (step.has("at_least_s") && took < step.get("at_least_s").getAsDouble()
        || step.has("at_most_s") && took > step.get("at_most_s").getAsDouble()) {
      throw new Unexpected(
          "expected at_least_s %s, at_most_s %s"
              .formatted(step.get("at_least_s"), step.get("at_most_s")),
          "%.3f s".formatted(took));
    }
  }

  private void make(JsonObject step) throws Exception {
    if (step.has("session") || step.has("stream")) {
      converse(step);
      return;
    }
    JsonObject filled = variables.fill(step).getAsJsonObject();
    try {
      JsonElement answer = filled.has("answers") ? stream(filled) : call(filled);
      if (filled.has("refusal")) {
        throw new Unexpected("expected a refusal: " + filled.get("refusal"), answer.toString());
      }
      if (filled.has("answer")) {
        Unexpected.unlessAnswers(filled.get("answer"), answer);
      }
      keep(filled, answer);
    } catch (StewardException refusal) {
      Unexpected.unlessRefuses(filled.getAsJsonObject("refusal"), refusal);
    }
  }

  private JsonElement call(JsonObject step) throws Exception {
    MethodDescriptor<Message, Message> method = method(step.get("call").getAsString());
    Steward steward = client(step);
    Message request = request(method, step);
    if (method.getType() == MethodDescriptor.MethodType.SERVER_STREAMING) {
      try (var answers = steward.stream(method, request)) {
        return Json.of(answers.next()); // the step has a refusal in place of the first answer
      }
    }
    if (!step.has("timeout_s")) {
      return Json.of(steward.call(method, request));
    }
    double timeout = step.get("timeout_s").getAsDouble();
    return Json.of(steward.call(method, request, Duration.ofNanos((long) (timeout * 1e9))));
  }

  /** Holds the first answers of a stream against what they must be; gives the last. */
  private JsonElement stream(JsonObject step) throws Exception {
    MethodDescriptor<Message, Message> method = method(step.get("call").getAsString());
    JsonElement last = new JsonObject();
    try (var answers = client(step).stream(method, request(method, step))) {
      for (JsonElement pattern : step.getAsJsonArray("answers")) {
        if (!answers.hasNext()) {
          throw new Unexpected("expected another answer: " + pattern, "the end");
        }
        last = Json.of(answers.next());
        Unexpected.unlessAnswers(pattern, last);
      }
      if (step.has("ends") && answers.hasNext()) {
        throw new Unexpected("expected the end", Json.of(answers.next()).toString());
      }
    }
    return last;
  }

  private void converse(JsonObject step) throws Exception {
    JsonObject caller = new JsonObject();
    for (String name : List.of("as", "at")) {
      if (step.has(name)) {
        caller.add(name, variables.fill(step.get(name)));
      }
    }
    boolean isSession = step.has("session");
    JsonArray exchanges = step.getAsJsonArray(isSession ? "session" : "stream");
    try (Conversation conversation =
        isSession ? Conversation.session(client(caller)) : Conversation.agents(client(caller))) {
      for (int at = 0; at < exchanges.size(); ) {
        at += exchange(conversation, exchanges, at);
      }
    }
  }

  /** Makes the exchange at this place, and those that go together with it; says how many. */
  private int exchange(Conversation conversation, JsonArray exchanges, int at) throws Exception {
    List<JsonObject> together = new ArrayList<>();
    List<Conversation.Awaited> awaited = new ArrayList<>();
    do {
      JsonObject exchange = variables.fill(exchanges.get(at + together.size())).getAsJsonObject();
      if (exchange.has("meanwhile")) {
        make(exchange.getAsJsonObject("meanwhile"));
      }
      awaited.add(
          exchange.has("send")
              ? conversation.say(exchange)
              : () -> exchange.has("push") ? conversation.push(exchange.get("push")) : null);
      together.add(exchange);
    } while (isTogether(exchanges, at + together.size() - 1)
        && isTogether(exchanges, at + together.size()));
    for (int each = 0; each < together.size(); each++) {
      keep(together.get(each), awaited.get(each).answer());
    }
    return together.size();
  }

  private static boolean isTogether(JsonArray exchanges, int at) {
    return at < exchanges.size() && exchanges.get(at).getAsJsonObject().has("together");
  }

  private void keep(JsonObject step, JsonElement answer) {
    if (step.has("keep")) {
      variables.keep(step.getAsJsonObject("keep"), answer);
    }
  }

  private Steward client(JsonObject step) {
    String address = environment.get(step.has("at") ? "STEWARD_SHAKY" : "STEWARD_SERVER");
    String credential = step.has("as") ? step.get("as").getAsString() : "";
    return clients.computeIfAbsent(
        List.of(address, credential), key -> Steward.at(address).token(credential).open());
  }

  private static Message request(MethodDescriptor<Message, Message> method, JsonObject step) {
    var marshaller = (PrototypeMarshaller<Message>) method.getRequestMarshaller();
    return Json.read(step.get("send"), marshaller.getMessagePrototype());
  }

  @SuppressWarnings("unchecked")
  private static MethodDescriptor<Message, Message> method(String name) throws Exception {
    String service = name.substring(0, name.indexOf('/'));
    var generated = Class.forName("dev." + service + "Grpc").getMethod("getServiceDescriptor");
    for (MethodDescriptor<?, ?> each : ((ServiceDescriptor) generated.invoke(null)).getMethods()) {
      if (each.getFullMethodName().equals(name)) {
        return (MethodDescriptor<Message, Message>) each;
      }
    }
    throw new IllegalArgumentException("there is no " + name);
  }
}
