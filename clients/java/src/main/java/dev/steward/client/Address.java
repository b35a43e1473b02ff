package dev.steward.client;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.Set;

/** Where a server is, and whether it is spoken to in TLS. */
record Address(String target, boolean isSecure) {
  private static final Set<String> SECURE = Set.of("https", "grpcs");
  private static final Set<String> PLAIN = Set.of("http", "grpc");

  /**
   * {@code host:port} is plain text, or TLS where roots are given; {@code https://host:port} is
   * TLS.
   */
  static Address parse(String text, boolean hasRoots) {
    int mark = text.indexOf("://");
    String scheme = mark < 0 ? "" : text.substring(0, mark);
    String target = (mark < 0 ? text : text.substring(mark + 3)).replaceFirst("/+$", "");
    boolean isKnown = mark < 0 || SECURE.contains(scheme) || PLAIN.contains(scheme);
    if (!isKnown || target.isEmpty() || target.contains("/")) {
      throw new IllegalArgumentException(
          "'%s' is no server's address; write host:port or https://host:port".formatted(text));
    }
    return new Address(target, mark < 0 ? hasRoots : SECURE.contains(scheme));
  }

  /** TLS by a file's roots, or by those of the system where there is none. */
  ChannelCredentials credentials(Path roots) {
    if (!isSecure) {
      return InsecureChannelCredentials.create();
    }
    if (roots == null) {
      return TlsChannelCredentials.create();
    }
    try {
      return TlsChannelCredentials.newBuilder().trustManager(roots.toFile()).build();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
