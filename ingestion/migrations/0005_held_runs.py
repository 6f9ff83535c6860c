"""Held runs: the approval of a run, and pipelines that may publish nothing."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ingestion', '0004_words'),
    ]

    operations = [
        migrations.AddField(
            model_name='pipeline',
            name='allow_empty',
            field=models.BooleanField(db_default=False, default=False, help_text='Publish a run without a single accepted row, instead of holding it.'),
        ),
        migrations.AddField(
            model_name='run',
            name='approved_at',
            field=models.DateTimeField(blank=True, help_text='When a person let it be published though a gate had held it.', null=True),
        ),
    ]
