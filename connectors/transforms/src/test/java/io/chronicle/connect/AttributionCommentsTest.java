package io.chronicle.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTimeout;

import java.time.Duration;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What of a statement is kept, and above all what is not. */
class AttributionCommentsTest {

  private static String in(String statement) {
    return AttributionComments.in(statement, true);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/* actor='ann' */ UPDATE t SET a = 1",
        "UPDATE t /*actor='ann'*/ SET a = 1",
        "UPDATE t SET a = 1 /* actor='ann' */",
        "UPDATE t SET a = 1 -- actor='ann'",
        "UPDATE t SET a = 1 # actor='ann'\nWHERE b = 2",
        "-- actor='ann'\r\nUPDATE t SET a = 1",
        "UPDATE t SET a = 'it\\'s' /* actor='ann' */",
        "UPDATE t SET a = 'it''s' /* actor='ann' */",
        "UPDATE t SET a = \"it's\" /* actor='ann' */",
        "UPDATE `we'ird` SET a = 1 /* actor='ann' */",
        "UPDATE `back\\` SET a = 1 /* actor='ann' */",
        "UPDATE t SET a = '\\\\' /* actor='ann' */",
        "UPDATE t SET a = '' /* actor='ann' */",
        "/*!50000 UPDATE */ t SET a = 1 /* actor='ann' */",
        "UPDATE t SET a = 5--3 /* actor='ann' */",
        "SELECT 2*/* actor='ann' */3",
      })
  void anAttributionIsKeptWhereverItStands(String statement) {
    assertEquals("/* actor='ann' */", in(statement));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "UPDATE t SET a = 1",
        "UPDATE t SET a = '/* actor=''eve'' */'",
        "UPDATE t SET a = ' /* actor=\\'eve\\' */ '",
        "UPDATE t SET a = 'x\\' /* y */', b = '-- actor=1'",
        "UPDATE t SET a = \"/* actor='eve' */\"",
        "UPDATE t SET a = \"x\"\" /* actor='eve' */\"",
        "UPDATE `/* actor='eve' */` SET a = 1",
        "UPDATE `a``/* actor='eve' */` SET a = 1",
        "UPDATE t SET a = '# actor=''eve''\n'",
        "/*! UPDATE t SET a = '/* actor=\\'eve\\' */' */",
        "/*!50000 SELECT 1 */* 2 AS actor='eve' */",
        "SELECT /*+ MAX_EXECUTION_TIME(1000) */ 1",
        "UPDATE t SET a = 'never closed /* actor=\\'eve\\' */",
        "UPDATE t /* never closed actor='eve'",
        "UPDATE t SET a = 5--actor='eve'",
      })
  void whatOnlyLooksLikeACommentIsNot(String statement) {
    assertNull(in(statement));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/* a plain remark */ SELECT 1",
        "/* UPDATE t SET password='secret' */ SELECT 1",
        "/* name='x' OR 1=1 */ SELECT 1",
        "/* name='x' name='y' */ SELECT 1",
        "/* name='x', */ SELECT 1",
        "/* name=x */ SELECT 1",
        "/* ='x' */ SELECT 1",
        "/* name='x */ SELECT 1",
        "/* name='x\ny' */ SELECT 1",
        "/* chronicle: secret */ SELECT 1",
        "/* chronicle {\"actor\":\"x\"} */ SELECT 1",
        "/**/ SELECT 1",
        "-- name='x' */ DROP\nSELECT 1",
      })
  void aCommentThatIsNoAttributionIsDropped(String statement) {
    assertNull(in(statement));
  }

  @Test
  void chroniclesOwnFormIsKeptWithItsJson() {
    String comment = "/* chronicle: {\"actor\": {\"id\": \"ann\"}, \"reason\": \"it's 'due'\"} */";
    assertEquals(comment, in("DELETE FROM t " + comment));
  }

  @Test
  void sqlcommentersEscapesAndEncodingAreKept() {
    String comment = "/* action='%2Fpolls',db.driver='it\\'s', traceparent='00-5bd6-01' */";
    assertEquals(comment, in("SELECT 1 " + comment));
  }

  @Test
  void severalAttributionsKeepTheirOrder() {
    assertEquals("/* a='1' */ /* b='2' */", in("/* a='1' */ SELECT 1 /* no */ -- b='2'"));
  }

  @Test
  void withoutBackslashEscapesABackslashEndsNoLiteral() {
    String statement = "UPDATE t SET a = 'C:\\', b = ' /* actor=\"eve\" */ /* actor=''eve'' */ '";
    assertNull(AttributionComments.in(statement, false));
    assertEquals("/* actor='ann' */", AttributionComments.in("UPDATE t SET a = 'C:\\' /* actor='ann' */", false));
  }

  @Test
  void aTextTooLongIsDroppedWhole() {
    assertNull(in("/* a='" + "x".repeat(AttributionComments.COMMENT_CHARS_MAX) + "' */ SELECT 1"));
  }

  @Test
  void aHugeStatementTakesLinearTime() {
    String statement = "INSERT INTO t VALUES " + "('a\\'b /* x=''y'' */'),".repeat(200_000) + "(1) /* actor='ann' */";
    assertTimeout(Duration.ofSeconds(5), () -> assertEquals("/* actor='ann' */", in(statement)));
  }
}
