package io.chronicle.connect;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLException;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.transforms.Transformation;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Holds a record with a schema that is new to this task until the schema registry answers.
 *
 * <p>The converter registers a new schema at once, and when the registry is away it fails the task, which nothing restarts. After
 * a start every schema is new, and later a DDL, or the first row of an empty table, brings one. Records whose schemas have been
 * seen pass without a look at the registry: the converter remembers their ids.
 *
 * <p>It waits in its own loop, for as long as it takes. Connect's own retry (a RetriableException under {@code
 * errors.retry.timeout}) is not for this: a task that is stopped in such a retry drops the record and goes on with the next one,
 * whose position is then stored.
 */
public final class AwaitRegistry<R extends ConnectRecord<R>> implements Transformation<R> {

  /** Where to ask; {@link #NONE} where there is no registry (JSON). */
  static final String URL = "url";

  static final String NONE = "none";

  /** Schemas that are remembered at most; what is forgotten is only asked for again. */
  static final int CACHE_MAX = 4000;

  private static final Duration TIMEOUT = Duration.ofSeconds(5);
  private static final long INTERVAL_MS = 1000;
  private static final long LOG_EVERY_MS = 30_000;
  private static final Logger LOG = LoggerFactory.getLogger(AwaitRegistry.class);

  private static final ConfigDef CONFIG =
      new ConfigDef()
          .define(URL, ConfigDef.Type.STRING, NONE, ConfigDef.Importance.MEDIUM, "The schema registry; none: wait for nothing.");

  private final Map<Schema, Boolean> seen = new IdentityHashMap<>();
  // Some schemas are built anew for each record: comparing them costs less than a request.
  private final Set<Schema> equal = new HashSet<>();
  private URI registry;
  private HttpClient client;

  @Override
  public R apply(R record) {
    if (registry != null && (isNew(record.keySchema()) | isNew(record.valueSchema()))) {
      await();
      remember(record.keySchema());
      remember(record.valueSchema());
    }
    return record;
  }

  private boolean isNew(Schema schema) {
    if (schema == null || seen.containsKey(schema)) {
      return false;
    }
    if (!equal.contains(schema)) {
      return true;
    }
    remember(schema);
    return false;
  }

  private void remember(Schema schema) {
    if (schema == null) {
      return;
    }
    if (seen.size() >= CACHE_MAX) {
      seen.clear();
    }
    if (equal.size() >= CACHE_MAX) {
      equal.clear();
    }
    seen.put(schema, true);
    equal.add(schema);
  }

  private void await() {
    long began = System.nanoTime();
    long logged = -1;
    for (String away = whyAway(); away != null; away = whyAway()) {
      long waited = (System.nanoTime() - began) / 1_000_000;
      if (logged < 0 || waited - logged >= LOG_EVERY_MS) {
        logged = waited;
        LOG.warn("waiting {} s for the schema registry at {}, to register a new schema: {}", waited / 1000, registry, away);
      }
      pause();
    }
    if (logged >= 0) {
      LOG.warn("the schema registry at {} answers again", registry);
    }
  }

  /** Null when somebody answers. A refusal (who are you?) is an answer: the converter has the account, not this. */
  private String whyAway() {
    HttpRequest request = HttpRequest.newBuilder(registry).timeout(TIMEOUT).GET().build();
    try {
      int status = client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
      return status >= 500 ? "it answers " + status : null;
    } catch (SSLException error) {
      return null; // it is there; whether it can be trusted is for the converter to say, which has its certificates
    } catch (IOException error) {
      return error.getClass().getSimpleName();
    } catch (InterruptedException error) {
      throw interrupted(error);
    }
  }

  private static void pause() {
    try {
      Thread.sleep(INTERVAL_MS);
    } catch (InterruptedException error) {
      throw interrupted(error);
    }
  }

  private static ConnectException interrupted(InterruptedException error) {
    Thread.currentThread().interrupt();
    return new ConnectException("stopped while the schema registry was away", error);
  }

  @Override
  public ConfigDef config() {
    return CONFIG;
  }

  @Override
  public void configure(Map<String, ?> settings) {
    String url = String.valueOf(CONFIG.parse(settings).get(URL)).strip();
    registry = url.equals(NONE) ? null : URI.create(url);
    client = registry == null ? null : HttpClient.newBuilder().connectTimeout(TIMEOUT).version(HttpClient.Version.HTTP_1_1).build();
  }

  @Override
  public void close() {}
}
