// Read remap.json on Android: which class of the original does an output of the pruned model mean?
// It uses org.json, which is part of Android.
//
//   val head = Remap.parse(assets.open("remap.json").bufferedReader().readText())
//   val scores = Array(1) { FloatArray(head.newUnits) }
//   interpreter.run(pixels, scores)                       // LiteRT, with the pruned .tflite file
//   val best = head.best(scores[0])
//   Log.i("model", "${best.original} ${best.label} ${best.score}")

import org.json.JSONArray
import org.json.JSONObject

/** A kept unit: its indices in the original model (several if they were merged), label and score. */
data class KeptUnit(val original: List<Int>, val label: String?, val score: Float)

/** The table of one head. */
class Remap(
    val newUnits: Int,
    private val kept: Set<Int>,
    private val newToOld: List<List<Int>>,
    private val labels: List<String>?
) {
    /** The kept unit with the highest score. */
    fun best(scores: FloatArray): KeptUnit {
        require(scores.size == newUnits) {
            "the remap has $newUnits units, and the output has ${scores.size}"
        }
        // With --mode mask or zero, removed units have a position too.
        val index = scores.indices
            .filter { newToOld[it].all(kept::contains) }
            .reduce { best, next -> if (scores[next] > scores[best]) next else best }
        return KeptUnit(newToOld[index], labels?.get(index), scores[index])
    }

    companion object {
        /** The first head in the text of remap.json. */
        fun parse(text: String): Remap {
            val remap = JSONObject(text)
            val schema = remap.getString("schema")
            require(schema == "exporter/remap/1") { "this is not a remap: its schema is $schema" }
            val head = remap.getJSONArray("heads").getJSONObject(0)
            return Remap(
                head.getInt("new_units"),
                numbers(head.getJSONArray("kept")).toSet(),
                each(head.getJSONArray("new_to_old")).map(::numbers),
                if (head.isNull("labels")) null else each(head.getJSONArray("labels")).map(Any::toString)
            )
        }

        private fun each(array: JSONArray): List<Any> = List(array.length()) { array.get(it) }

        private fun numbers(value: Any): List<Int> =
            if (value is JSONArray) each(value).map { it as Int } else listOf(value as Int)
    }
}
