import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;

/** What an answer's JSON must be like, as clients/conformance/README.md has it. */
final class Pattern {
  private Pattern() {}

  /** What is other than the pattern wants it, in sentences; none if it matches. */
  static List<String> faults(JsonElement pattern, JsonElement value) {
    List<String> faults = new ArrayList<>();
    compare("", pattern, value, faults);
    return faults;
  }

  private static void compare(
      String path, JsonElement pattern, JsonElement value, List<String> faults) {
    if (!pattern.isJsonObject()) {
      if (pattern.isJsonArray()) {
        compareLists(path, pattern.getAsJsonArray(), value, faults);
      } else if (pattern.isJsonNull() ? value != null : !isEqual(pattern, value)) {
        faults.add(fault(path, pattern));
      }
      return;
    }
    JsonObject members = pattern.getAsJsonObject();
    boolean isThere = value != null;
    if (members.has("$any")) {
      expect(isThere, path, pattern, faults);
    } else if (members.has("$match")) {
      String regex = members.get("$match").getAsString();
      expect(isText(value) && value.getAsString().matches(regex), path, pattern, faults);
    } else if (members.has("$has")) {
      for (JsonElement each : members.getAsJsonArray("$has")) {
        expect(hasElement(value, each), path, each, faults);
      }
    } else if (isThere && value.isJsonObject()) {
      for (String name : members.keySet()) {
        String below = path.isEmpty() ? name : path + "." + name;
        compare(below, members.get(name), value.getAsJsonObject().get(name), faults);
      }
    } else {
      faults.add(fault(path, pattern));
    }
  }

  private static void compareLists(
      String path, JsonArray patterns, JsonElement value, List<String> faults) {
    if (value == null || !value.isJsonArray() || value.getAsJsonArray().size() != patterns.size()) {
      faults.add(fault(path, patterns));
      return;
    }
    for (int at = 0; at < patterns.size(); at++) {
      compare(path + "." + at, patterns.get(at), value.getAsJsonArray().get(at), faults);
    }
  }

  private static boolean hasElement(JsonElement list, JsonElement pattern) {
    return list != null
        && list.isJsonArray()
        && StreamSupport.stream(list.getAsJsonArray().spliterator(), false)
            .anyMatch(each -> faults(pattern, each).isEmpty());
  }

  private static boolean isEqual(JsonElement pattern, JsonElement value) {
    if (!isNumber(pattern) || !isNumber(value)) {
      return pattern.equals(value);
    }
    double wanted = pattern.getAsDouble();
    double came = value.getAsDouble();
    double scale = Math.max(1, Math.max(Math.abs(wanted), Math.abs(came)));
    return Math.abs(wanted - came) <= 1e-6 * scale;
  }

  private static boolean isNumber(JsonElement value) {
    return value instanceof JsonPrimitive primitive && primitive.isNumber();
  }

  private static boolean isText(JsonElement value) {
    return value instanceof JsonPrimitive primitive && primitive.isString();
  }

  private static void expect(
      boolean isGood, String path, JsonElement pattern, List<String> faults) {
    if (!isGood) {
      faults.add(fault(path, pattern));
    }
  }

  private static String fault(String path, JsonElement pattern) {
    String wanted = pattern instanceof JsonNull ? "absent" : pattern.toString();
    return "expected %s to be %s".formatted(path.isEmpty() ? "it" : path, wanted);
  }
}
