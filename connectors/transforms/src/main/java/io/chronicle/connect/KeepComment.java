package io.chronicle.connect;

import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Cuts {@code source.query} of a Debezium envelope down to its attribution comments, or to null when it has none.
 *
 * <p>With {@code include.query=true} the MySQL and MariaDB connectors put the whole statement, with its literals, on every row
 * that it changed: personal data, and 49 MB for one INSERT of 500 rows. This runs before the record is serialized, so that no
 * statement text ever leaves Connect. A statement without attribution, and one that cannot be lexed to its end, gives null.
 */
public final class KeepComment<R extends ConnectRecord<R>> implements Transformation<R> {

  /** Set it when the server's sql_mode has NO_BACKSLASH_ESCAPES: a backslash then is an ordinary character of a literal. */
  static final String NO_BACKSLASH_ESCAPES = "no.backslash.escapes";

  private static final ConfigDef CONFIG =
      new ConfigDef()
          .define(
              NO_BACKSLASH_ESCAPES,
              ConfigDef.Type.BOOLEAN,
              false,
              ConfigDef.Importance.MEDIUM,
              "True when the database server's sql_mode has NO_BACKSLASH_ESCAPES.");

  private boolean backslashEscapes = true;

  // The rows of one statement follow each other and carry the same string object or an equal one: cut it once.
  private String lastStatement;
  private String lastComment;

  @Override
  public R apply(R record) {
    if (!(record.value() instanceof Struct envelope)) {
      return record;
    }
    Field sourceField = envelope.schema().field("source");
    if (sourceField == null || sourceField.schema().type() != Schema.Type.STRUCT) {
      return record;
    }
    Struct source = envelope.getStruct("source");
    Field query = source == null ? null : source.schema().field("query");
    if (query == null || query.schema().type() != Schema.Type.STRING) {
      return record;
    }
    Object statement = source.getWithoutDefault("query");
    if (statement == null) {
      return record;
    }
    Struct newSource = new Struct(source.schema());
    for (Field field : source.schema().fields()) {
      newSource.put(field, source.getWithoutDefault(field.name()));
    }
    // a required field cannot be null; an empty text says the same
    String comment = comment((String) statement);
    newSource.put(query, comment == null && !query.schema().isOptional() ? "" : comment);
    Struct newEnvelope = new Struct(envelope.schema());
    for (Field field : envelope.schema().fields()) {
      newEnvelope.put(field, field == sourceField ? newSource : envelope.getWithoutDefault(field.name()));
    }
    return record.newRecord(
        record.topic(),
        record.kafkaPartition(),
        record.keySchema(),
        record.key(),
        record.valueSchema(),
        newEnvelope,
        record.timestamp(),
        record.headers());
  }

  private String comment(String statement) {
    if (!statement.equals(lastStatement)) {
      lastComment = AttributionComments.in(statement, backslashEscapes);
      lastStatement = statement;
    }
    return lastComment;
  }

  @Override
  public ConfigDef config() {
    return CONFIG;
  }

  @Override
  public void configure(Map<String, ?> settings) {
    backslashEscapes = !(Boolean) CONFIG.parse(settings).get(NO_BACKSLASH_ESCAPES);
  }

  @Override
  public void close() {
    lastStatement = null;
    lastComment = null;
  }
}
