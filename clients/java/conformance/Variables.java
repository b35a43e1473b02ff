import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;

/** What {@code ${NAME}} stands for in a script. */
final class Variables {
  private static final java.util.regex.Pattern NAME =
      java.util.regex.Pattern.compile("\\$\\{([A-Z0-9_]+)}");
  private static final String PREFIX = "STEWARD_VAR_";

  private final Map<String, String> values = new HashMap<>();

  Variables(Map<String, String> environment) {
    environment.forEach(
        (name, value) -> {
          if (name.startsWith(PREFIX)) {
            values.put(name.substring(PREFIX.length()), value);
          }
        });
  }

  /** The same, with the values in place of the names in every text. */
  JsonElement fill(JsonElement part) {
    if (part.isJsonObject()) {
      JsonObject filled = new JsonObject();
      part.getAsJsonObject().asMap().forEach((name, value) -> filled.add(name, fill(value)));
      return filled;
    }
    if (part.isJsonArray()) {
      JsonArray filled = new JsonArray();
      part.getAsJsonArray().forEach(each -> filled.add(fill(each)));
      return filled;
    }
    if (part instanceof JsonPrimitive primitive && primitive.isString()) {
      return new JsonPrimitive(fill(primitive.getAsString()));
    }
    return part;
  }

  /** Takes values out of an answer: {@code {"NAME": "path.to.0.field"}}. */
  void keep(JsonObject paths, JsonElement answer) {
    paths.asMap().forEach((name, path) -> values.put(name, at(path.getAsString(), answer)));
  }

  private String fill(String text) {
    return NAME.matcher(text)
        .replaceAll(
            found -> {
              String value = values.get(found.group(1));
              if (value == null) {
                throw new IllegalArgumentException("nobody has set ${" + found.group(1) + "}");
              }
              return Matcher.quoteReplacement(value);
            });
  }

  private static String at(String path, JsonElement answer) {
    JsonElement value = answer;
    for (String part : path.split("\\.")) {
      if (value != null) {
        value =
            value.isJsonArray()
                ? value.getAsJsonArray().get(Integer.parseInt(part))
                : value.getAsJsonObject().get(part);
      }
    }
    if (value == null) {
      throw new IllegalArgumentException("there is no " + path + " in " + answer);
    }
    return value.getAsString();
  }
}
