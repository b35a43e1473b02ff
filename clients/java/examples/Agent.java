import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.steward.budget.v1.Control;
import dev.steward.budget.v1.DesiredState;
import dev.steward.budget.v1.HandshakeRequest;
import dev.steward.budget.v1.HandshakeResponse;
import dev.steward.budget.v1.ReportAck;
import dev.steward.budget.v1.ReportBatch;
import dev.steward.budget.v1.ReturnRequest;
import dev.steward.budget.v1.Usage;
import dev.steward.client.AgentStream;
import dev.steward.client.ProviderKey;
import dev.steward.client.Session;
import dev.steward.client.Steward;
import dev.steward.inference.v1.StepResponse;
import java.io.IOException;
import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.UUID;

/**
 * An agent that takes a lease, pays for one call, reports it and returns the rest; then it steps
 * the policy "cartpole" a few times.
 *
 * <pre>STEWARD_SERVER=127.0.0.1:50051 STEWARD_IC_TOKEN=… java @clients/java/target/classpath Agent
 * </pre>
 */
public final class Agent {
  private static final long TRANCHE_NANOUSD = 100_000; // $0.0001
  private static final String MODEL = "gpt-4o-mini";

  public static void main(String[] arguments) throws Exception {
    String server = System.getenv().getOrDefault("STEWARD_SERVER", "127.0.0.1:50051");
    String token = System.getenv("STEWARD_IC_TOKEN");
    try (Steward steward = Steward.at(server).token(token).open()) {
      spend(steward, token);
      balance(steward);
    }
  }

  private static void spend(Steward steward, String token) throws Exception {
    try (Session session = steward.session(Agent::obey)) {
      HandshakeResponse lease =
          session.handshake(
              HandshakeRequest.newBuilder().setRequestedBudgetNanousd(TRANCHE_NANOUSD).build());
      System.out.printf(
          "%s: %s lent%n", lease.getLeaseId(), dollars(lease.getBudgetGrantedNanousd()));

      Usage usage = ask(lease, ProviderKey.open(lease, token));
      ReportAck booked =
          session.report(
              ReportBatch.newBuilder().setLeaseId(lease.getLeaseId()).addUsages(usage).build());
      System.out.printf("one call: %s spent%n", dollars(booked.getLeaseSpentNanousd()));

      var rest =
          session.giveBack(ReturnRequest.newBuilder().setLeaseId(lease.getLeaseId()).build());
      System.out.printf("%s returned%n", dollars(rest.getReturnedNanousd()));
    }
  }

  private static void obey(Control control) {
    if (control.getDesiredState() == DesiredState.DESIRED_STATE_STOPPED) {
      System.out.println("told to stop: " + control.getReason());
    }
  }

  /** Asks the provider something, and says what that used; the ledger knows the price. */
  private static Usage ask(HandshakeResponse lease, String key)
      throws IOException, InterruptedException {
    String question =
        """
        {"model": "%s", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
        """
            .formatted(MODEL);
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(lease.getBaseUrl() + "/chat/completions"))
            .header("authorization", "Bearer " + key)
            .header("content-type", "application/json")
            .POST(BodyPublishers.ofString(question))
            .build();
    var answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    if (answer.statusCode() != 200) {
      throw new IOException("the provider said " + answer.statusCode() + ": " + answer.body());
    }
    JsonObject used =
        JsonParser.parseString(answer.body()).getAsJsonObject().getAsJsonObject("usage");
    return Usage.newBuilder()
        .setRequestId(UUID.randomUUID().toString())
        .setSequence(1)
        .setModel(MODEL)
        .setInputTokens(used.get("prompt_tokens").getAsLong())
        .setOutputTokens(used.get("completion_tokens").getAsLong())
        .build();
  }

  private static void balance(Steward steward) {
    try (AgentStream stream = steward.agents()) {
      AgentStream.Agent pole = stream.bring("cartpole");
      float[] state = {0, 0, 0.05f, 0};
      for (int step = 1; step <= 5; step++) {
        StepResponse decided = pole.likeliestStep(state);
        state = moved(state, decided.getAction().getChoice() == 1 ? 10 : -10);
        System.out.printf("%s, step %d: the pole leans %.4f%n", pole.policy(), step, state[2]);
      }
    }
  }

  /** The cart and its pole 20 ms later; the equations are those of Barto, Sutton and Anderson. */
  private static float[] moved(float[] state, double force) {
    double pull = Math.sin(state[2]);
    double lean = Math.cos(state[2]);
    double push = (force + 0.05 * state[3] * state[3] * pull) / 1.1;
    double turn = (9.8 * pull - lean * push) / (0.5 * (4.0 / 3 - 0.1 * lean * lean / 1.1));
    double speed = push - 0.05 * turn * lean / 1.1;
    double[] rates = {state[1], speed, state[3], turn};
    float[] next = new float[4];
    for (int at = 0; at < 4; at++) {
      next[at] = (float) (state[at] + 0.02 * rates[at]);
    }
    return next;
  }

  private static String dollars(long nanousd) {
    return "$" + BigDecimal.valueOf(nanousd, 9).stripTrailingZeros().toPlainString();
  }
}
