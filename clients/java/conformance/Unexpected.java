import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import dev.steward.client.StewardException;
import java.util.List;

/** Something came that the script does not expect. */
final class Unexpected extends RuntimeException {
  private static final long serialVersionUID = 1;

  Unexpected(String expected, String came) {
    super(expected + "\ncame " + came);
  }

  static void unlessAnswers(JsonElement pattern, JsonElement answer) {
    List<String> faults = Pattern.faults(pattern, answer);
    if (!faults.isEmpty()) {
      throw new Unexpected(String.join("\n", faults), answer.toString());
    }
  }

  /**
   * Holds a refusal against what it must be, of which only what is named is compared; null where an
   * answer should have come.
   */
  static void unlessRefuses(JsonObject wanted, StewardException error) {
    JsonObject came = shown(error);
    if (wanted == null) {
      throw new Unexpected("expected an answer", came.toString());
    }
    JsonObject pattern = wanted.deepCopy();
    JsonElement fields = pattern.remove("fields");
    List<String> faults = Pattern.faults(pattern, came);
    if (fields != null && !error.fields().keySet().equals(Conformance.texts(fields))) {
      faults.add("expected fields to be " + fields);
    }
    if (!faults.isEmpty()) {
      throw new Unexpected(String.join("\n", faults), came.toString());
    }
  }

  private static JsonObject shown(StewardException error) {
    JsonObject shown = new JsonObject();
    shown.addProperty("kind", error.getClass().getSimpleName());
    shown.addProperty("code", error.code().name());
    shown.addProperty("reason", error.reason());
    shown.addProperty("message", error.getMessage());
    shown.addProperty("retry_after", error.retryAfter().isPresent());
    JsonObject facts = new JsonObject();
    error.facts().forEach(facts::addProperty);
    shown.add("facts", facts);
    JsonArray fields = new JsonArray();
    error.fields().keySet().forEach(name -> fields.add(new JsonPrimitive(name)));
    shown.add("fields", fields);
    JsonArray errors = new JsonArray();
    error
        .textErrors()
        .forEach(
            each -> {
              JsonObject one = new JsonObject();
              one.addProperty("line", each.line());
              one.addProperty("column", each.column());
              one.addProperty("path", each.path());
              one.addProperty("message", each.message());
              errors.add(one);
            });
    shown.add("errors", errors);
    return shown;
  }
}
