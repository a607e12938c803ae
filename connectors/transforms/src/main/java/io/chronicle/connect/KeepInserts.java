package io.chronicle.connect;

import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Drops everything of a table but its inserted rows.
 *
 * <p>For an outbox table, in front of Debezium's {@code EventRouter}: an event is a row's insert, its delete says nothing, and a
 * TRUNCATE, which the router does not know, would fail the task at the same record for ever. Applied under a predicate that names
 * the table's topic.
 */
public final class KeepInserts<R extends ConnectRecord<R>> implements Transformation<R> {

  /** Created, and read by a snapshot: a row that somebody put there and nobody took away. */
  private static final Set<Object> INSERTS = Set.of("c", "r");

  @Override
  public R apply(R record) {
    boolean inserted =
        record.value() instanceof Struct envelope
            && envelope.schema().field("op") != null
            && envelope.get("op") instanceof String operation
            && INSERTS.contains(operation);
    return inserted ? record : null;
  }

  @Override
  public ConfigDef config() {
    return new ConfigDef();
  }

  @Override
  public void configure(Map<String, ?> settings) {}

  @Override
  public void close() {}
}
