package io.chronicle.connect;

import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;
import org.junit.jupiter.api.Test;

/** An outbox is what was put into it. */
class KeepInsertsTest {

  private static final Schema ENVELOPE = SchemaBuilder.struct().name("t.Envelope").field("op", Schema.OPTIONAL_STRING_SCHEMA).build();

  private static SourceRecord record(Schema schema, Object value) {
    return new SourceRecord(Map.of("p", 1), Map.of("o", 2), "topic", 3, null, "key", schema, value, 5L);
  }

  private static SourceRecord operation(String operation) {
    return record(ENVELOPE, new Struct(ENVELOPE).put("op", operation));
  }

  private static SourceRecord apply(SourceRecord record) {
    try (KeepInserts<SourceRecord> transform = new KeepInserts<>()) {
      transform.configure(Map.of());
      return transform.apply(record);
    }
  }

  @Test
  void insertedRowsPassAsTheyCame() {
    for (String operation : new String[] {"c", "r"}) {
      SourceRecord in = operation(operation);
      assertSame(in, apply(in));
    }
  }

  @Test
  void deletesUpdatesTruncatesAndTombstonesAreDropped() {
    for (String operation : new String[] {"d", "u", "t", "m", null}) {
      assertNull(apply(operation(operation)));
    }
    assertNull(apply(record(null, null)));
  }

  @Test
  void whatIsNoEnvelopeIsDropped() {
    Schema other = SchemaBuilder.struct().field("id", Schema.STRING_SCHEMA).build();
    assertNull(apply(record(other, new Struct(other).put("id", "c"))));
    assertNull(apply(record(Schema.STRING_SCHEMA, "c")));
  }
}
