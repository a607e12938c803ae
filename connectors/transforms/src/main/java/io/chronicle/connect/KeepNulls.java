package io.chronicle.connect;

import java.util.IdentityHashMap;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Keeps a NULL in a column that has a DEFAULT.
 *
 * <p>Connect's {@link Struct#get} answers a null with the field's default, and Avro converters have no switch against it, so
 * that an audit trail would record a value which was never there. This takes the defaults out of the row schemas of a Debezium
 * envelope ({@code before} and {@code after}) and copies the values as they are. Everything else passes as it came: tombstones,
 * records that are no envelope, keys, headers, timestamp.
 */
public final class KeepNulls<R extends ConnectRecord<R>> implements Transformation<R> {

  /** Envelope schemas that are remembered at most; a connector has one per table and version of it. */
  static final int CACHE_MAX = 1000;

  // An envelope's schema to its copy, any other to itself. By identity: Debezium gives out the same schema object for a table until the table changes, and comparing two schemas
  // field by field for every record would cost more than the copy.
  private final Map<Schema, Schema> cache = new IdentityHashMap<>();

  @Override
  public R apply(R record) {
    if (!(record.value() instanceof Struct envelope)) {
      return record;
    }
    Schema schema = cache.get(envelope.schema());
    if (schema == null) {
      if (cache.size() >= CACHE_MAX) {
        cache.clear();
      }
      schema = isEnvelope(envelope.schema()) ? withoutRowDefaults(envelope.schema()) : envelope.schema();
      cache.put(envelope.schema(), schema);
    }
    if (schema == envelope.schema()) {
      return record;
    }
    Struct copy = new Struct(schema);
    for (Field field : envelope.schema().fields()) {
      Object value = envelope.getWithoutDefault(field.name());
      boolean row = isRow(field) && value != null;
      copy.put(field.name(), row ? copyRow((Struct) value, schema.field(field.name()).schema()) : value);
    }
    return record.newRecord(
        record.topic(),
        record.kafkaPartition(),
        record.keySchema(),
        record.key(),
        schema,
        copy,
        record.timestamp(),
        record.headers());
  }

  /** A Debezium envelope has an operation beside its rows; a user's own struct with a field {@code before} does not. */
  private static boolean isEnvelope(Schema schema) {
    return schema.field("op") != null && schema.fields().stream().anyMatch(KeepNulls::isRow);
  }

  private static boolean isRow(Field field) {
    return (field.name().equals("before") || field.name().equals("after")) && field.schema().type() == Schema.Type.STRUCT;
  }

  private static Schema withoutRowDefaults(Schema envelope) {
    SchemaBuilder builder = head(envelope, SchemaBuilder.struct());
    for (Field field : envelope.fields()) {
      builder.field(field.name(), isRow(field) ? rowWithoutDefaults(field.schema()) : field.schema());
    }
    return builder.build();
  }

  private static Schema rowWithoutDefaults(Schema row) {
    SchemaBuilder builder = head(row, SchemaBuilder.struct());
    for (Field field : row.fields()) {
      builder.field(field.name(), field.schema().defaultValue() == null ? field.schema() : withoutDefault(field.schema()));
    }
    return builder.build();
  }

  private static Schema withoutDefault(Schema schema) {
    return switch (schema.type()) {
      case ARRAY -> head(schema, SchemaBuilder.array(schema.valueSchema())).build();
      case MAP -> head(schema, SchemaBuilder.map(schema.keySchema(), schema.valueSchema())).build();
      case STRUCT -> {
        // a semantic type (point, geometry, variable scale decimal): its value keeps its own schema, so only the head changes
        SchemaBuilder builder = head(schema, SchemaBuilder.struct());
        schema.fields().forEach(field -> builder.field(field.name(), field.schema()));
        yield builder.build();
      }
      default -> head(schema, SchemaBuilder.type(schema.type())).build();
    };
  }

  private static SchemaBuilder head(Schema from, SchemaBuilder to) {
    if (from.isOptional()) {
      to.optional();
    }
    if (from.name() != null) {
      to.name(from.name());
    }
    if (from.version() != null) {
      to.version(from.version());
    }
    if (from.doc() != null) {
      to.doc(from.doc());
    }
    if (from.parameters() != null) {
      to.parameters(from.parameters());
    }
    return to;
  }

  private static Struct copyRow(Struct row, Schema to) {
    Struct copy = new Struct(to);
    for (Field field : row.schema().fields()) {
      Object value = row.getWithoutDefault(field.name());
      Schema schema = to.field(field.name()).schema();
      // a nested struct must carry the very schema of its field, or Struct.put refuses it
      copy.put(field.name(), value instanceof Struct nested && schema != nested.schema() ? copyRow(nested, schema) : value);
    }
    return copy;
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
