"""Plain indexes on state and time: SQLite takes no partial one for a question that binds its states as parameters."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ingestion', '0005_held_runs'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='delivery',
            name='delivery_open',
        ),
        migrations.RemoveIndex(
            model_name='partition',
            name='partition_open',
        ),
        migrations.RemoveIndex(
            model_name='run',
            name='run_open',
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['state', 'not_before'], name='delivery_by_state'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['needs_abort'], name='delivery_to_abort'),
        ),
        migrations.AddIndex(
            model_name='deliverypart',
            index=models.Index(fields=['state', 'not_before'], name='delivery_part_by_state'),
        ),
        migrations.AddIndex(
            model_name='partition',
            index=models.Index(fields=['state', 'not_before'], name='partition_by_state'),
        ),
        migrations.AddIndex(
            model_name='partition',
            index=models.Index(fields=['run', 'state'], name='partition_by_run_and_state'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['state', 'not_before'], name='run_by_state'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['pipeline', 'state'], name='run_by_pipeline_and_state'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['pipeline', 'published_at'], name='run_by_publication'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['created_at'], name='run_by_creation'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['finished_at'], name='run_by_end'),
        ),
    ]
